/** Cells of CSV files that this project alone reads: W of several micro-batches, and R. */
import process from "node:process";
import type { Schedule } from "../schedules/schedule.ts";

/** Says on standard error where a CSV file has such cells. */
export function warnOfOwnCells({ actions }: Schedule): void {
  const warn = (what: string, how: string) =>
    process.stderr.write(`schedule: the CSV has ${what}, which PyTorch rejects: schedule export --to torch ${how}\n`);
  const all = actions.flat();
  if (all.some(({ microbatches }) => microbatches.length > 1)) {
    warn("W of several micro-batches (CONCAT_W)", "writes them one after the other");
  }
  if (all.some(({ kind }) => kind === "R")) warn("recomputation of its own (R)", "leaves it out");
}
