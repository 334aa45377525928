/**
 * The transport of predictions for ranks in several processes: that of one process, on dry devices, and besides what a message that is
 * waited for takes there, the buffer that MPI writes it into.
 */
import type { Device } from "../../gpu/device.ts";
import type { Transport } from "../transport.ts";
import { inProcess } from "./in_process.ts";
import { reduceByMessages } from "./reduce.ts";
import { createRing, uploads } from "./ring.ts";

/** The transports of all ranks, whose devices these are. */
export function asBetweenProcesses(devices: readonly Device[]): readonly Transport[] {
  return inProcess(devices).map((within, rank) => {
    const device = devices[rank], incoming = createRing(device, uploads);
    const unshare = device.pool.shareWith(incoming.trim);
    const transport: Transport = {
      ...within,
      async receive(from, id, target) {
        const bytes = Math.ceil(target.bytes / 4) * 4, upload = incoming.take(bytes);
        try {
          await within.receive(from, id, target);
        } finally {
          incoming.give(upload, bytes);
        }
      },
      reduce: (ranks, id, tensor) => reduceByMessages(transport, rank, ranks, id, tensor),
      close() {
        incoming.trim();
        unshare();
        within.close();
      },
    };
    return transport;
  });
}
