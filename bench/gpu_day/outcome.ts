/** What a GPU day leaves behind: of each part how it ended, beside the files that the part wrote itself. */
import type { Machine } from "../../lib/measure/machine.ts";

/** How a part ended: of what ran out of time nothing is left, unless it says so. */
export type Status = "done" | "failed" | "out of time" | "skipped";

/** How a part ended, and why. */
export interface Outcome {
  /** Name of the part; its numbers are in `name.json`, what it printed in `name.txt`. */
  readonly name: string;
  /** How it ended. */
  readonly status: Status;
  /** How long it took, in seconds. */
  readonly seconds: number;
  /** How long it was allowed to take, in seconds. */
  readonly limit: number;
  /** Why it was not done, or not all of it. */
  readonly reason?: string;
}

/** A run of `deno task bench gpu`, as `report.json` has it. */
export interface GpuDay {
  /** Version of this form. */
  readonly schema: 1;
  /** Command line, without paths of the machine. */
  readonly command: string;
  /** Where it ran. */
  readonly machine: Machine;
  /** Sizes that only show whether it runs. */
  readonly quick: boolean;
  /** Minutes for all of it. */
  readonly minutes: number;
  /** Parts, in the order in which they ran. */
  readonly parts: readonly Outcome[];
}

/** Whether something did not come out that was asked for and could be tried. */
export function isFaulty({ status }: Outcome): boolean {
  return status === "failed" || status === "out of time";
}
