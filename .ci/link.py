"""A link between two network namespaces: `link.py MBIT_PER_SECOND MS_OF_DELAY NAMESPACE_A ADDRESS_A NAMESPACE_B ADDRESS_B`, as root.

Each gets a TUN device with its address, and what the one sends comes out of the other after its turn on a line of that bandwidth and
after that delay, in its order; nothing is lost. It is what tc's netem does, which not every kernel has. Prints "up", and ends when
its standard input does.
"""

import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MTU = 9000  # as between the machines of a cluster: fewer packets to carry by hand


def run(*command):
    subprocess.run(command, check=True)


def open_end(namespace, address):
    name = f"twobp{os.getpid() % 10000}"
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    run("ip", "link", "set", name, "netns", namespace)
    inside = ("ip", "-n", namespace)
    run(*inside, "addr", "add", f"{address}/24", "dev", name)
    run(*inside, "link", "set", name, "mtu", str(MTU), "txqueuelen", "10000", "up")
    return fd


rate, delay = float(sys.argv[1]) * 125e3, float(sys.argv[2]) / 1e3
ends = [open_end(*sys.argv[at : at + 2]) for at in (3, 5)]
queues = {fd: collections.deque() for fd in ends}  # (when it comes out, packet), by where it comes out
free = {fd: 0.0 for fd in ends}  # when the line towards it is free
print("up", flush=True)

while True:
    now = time.monotonic()
    for fd, queue in queues.items():
        while queue and queue[0][0] <= now:
            os.write(fd, queue.popleft()[1])
    first = min((queue[0][0] for queue in queues.values() if queue), default=None)
    readable, _, _ = select.select([*ends, 0], [], [], None if first is None else max(0, first - time.monotonic()))
    if 0 in readable:
        sys.exit()
    for fd in readable:
        other = ends[1] if fd == ends[0] else ends[0]
        while True:
            try:
                packet = os.read(fd, MTU)
            except BlockingIOError:
                break
            free[other] = max(free[other], time.monotonic()) + len(packet) / rate
            queues[other].append((free[other] + delay, packet))
