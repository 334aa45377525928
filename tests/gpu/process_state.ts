/** What a process holds of the system, as Linux lists it. */
import { readdirSync, readFileSync } from "node:fs";

/** Threads, descriptors, memory mappings and resident MiB of this process. */
export function processState() {
  const status = readFileSync("/proc/self/status", "utf8");
  const of = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)![1]);
  return {
    threads: of("Threads"),
    descriptors: readdirSync("/proc/self/fd").length,
    mappings: readFileSync("/proc/self/maps", "utf8").split("\n").length,
    mebibytes: of("VmRSS") / 1024,
  };
}
