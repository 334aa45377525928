#!/bin/sh
# What Open MPI calls in place of ssh: `two_hosts.sh NAME COMMAND...` runs a command on a host of `two_hosts.ts`, a network namespace
# twobp-NAME with that name and a core of its own.
host=$1
shift
case $host in one) core=0 ;; *) core=1 ;; esac
exec ip netns exec "twobp-$host" unshare -u taskset -c "$core" sh -c "hostname $host; $*"
