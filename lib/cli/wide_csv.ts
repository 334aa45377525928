/** Weight gradients of several micro-batches in CSV files: what PyTorch does not read. */
import process from "node:process";
import type { Schedule } from "../schedules/schedule.ts";

/** Says on standard error where a CSV file has cells that this project alone reads. */
export function warnOfWideCsv({ actions }: Schedule): void {
  if (!actions.some((list) => list.some(({ microbatches }) => microbatches.length > 1))) return;
  process.stderr.write(
    "schedule: the CSV has W of several micro-batches (CONCAT_W), which PyTorch rejects: schedule export --to torch " +
      "writes them one after the other\n",
  );
}
