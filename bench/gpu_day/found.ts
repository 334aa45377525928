/** What the parts of a GPU day have found, read from the files that they left in its folder. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Diagnosis, KernelsReport, PaperReport, ThroughputReport } from "twobp/measure";
import type { PeerRow } from "../peers/compare.ts";
import type { TestCounts } from "./test_counts.ts";

/** What the parts of a day have found, as far as they came to it. */
export interface Found {
  readonly doctor?: Diagnosis;
  /** Of the parts that run tests, by name. */
  readonly tests: ReadonlyMap<string, TestCounts>;
  /** Of the parts that measure kernels, by name, in the order of the day. */
  readonly kernels: ReadonlyMap<string, KernelsReport>;
  /** With kernels by the rule, and with those that measuring chooses. */
  readonly throughput?: ThroughputReport;
  readonly calibrated?: ThroughputReport;
  readonly paper?: PaperReport;
  readonly ablation?: PaperReport;
  readonly peers?: { readonly rows: readonly PeerRow[] };
  readonly torch?: { readonly rows: readonly PeerRow[] };
}

/** Reads what the parts left in a folder. */
export function findingsOf(folder: string): Found {
  const read = <T>(name: string): T | undefined => {
    const path = join(folder, `${name}.json`);
    if (!existsSync(path)) return undefined;
    return JSON.parse(readFileSync(path, "utf8"), (_, value) => value === null ? NaN : value); // as JSON has NaN
  };
  const all = <T>(...names: string[]) =>
    new Map(names.flatMap((name) => {
      const report = read<T>(name);
      return report ? [[name, report] as const] : [];
    }));
  return {
    doctor: read("doctor"),
    tests: all<TestCounts>("ops", "layers"),
    kernels: all<KernelsReport>("products", "half", "attention", "scans", "convolutions", "kernels"),
    throughput: read("throughput"),
    calibrated: read("calibrated"),
    paper: read("paper"),
    ablation: read("ablation"),
    peers: read("peers"),
    torch: read("torch"),
  };
}
