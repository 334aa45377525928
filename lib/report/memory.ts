/** A memory run as a table. */
import { categories, type Category } from "../gpu/ledger.ts";
import type { MemoryReport } from "../measure/memory.ts";
import type { Table } from "./html.ts";

/** Peaks of each schedule on each device, in MiB: all together, how far the prediction was off, and by category. */
export function memoryTable({ rows }: MemoryReport): Table {
  return {
    columns: ["schedule", "2BP", "recomputed", "rank", "predicted", "measured", "off", ...categories],
    rows: rows.flatMap(({ schedule, twoStage, policy, width, recompute, devices }) =>
      devices.map(({ rank, predicted, measured, predictedPeak, measuredPeak }) => [
        schedule,
        twoStage ? `${policy}, width ${width}` : "no",
        recompute,
        rank,
        mebibytes(predictedPeak),
        measuredPeak === undefined ? "-" : mebibytes(measuredPeak),
        measuredPeak === undefined ? "-" : `${(100 * (predictedPeak / measuredPeak - 1)).toFixed(1)} %`,
        ...categories.map((category: Category) => mebibytes((measured ?? predicted)[category])),
      ])
    ),
  };
}

const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
