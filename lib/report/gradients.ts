/** What `checkGradients()` has found, as tables. */
import { formatBytes } from "../bytes.ts";
import type { GradientReport } from "../layers/check_gradients.ts";
import type { Table } from "./html.ts";

/** One line a check: whether it holds, the largest error, what is allowed, and where the error is. */
export function gradientTable({ rows }: GradientReport): Table {
  return {
    columns: ["check", "in", "holds", "error", "allowed", "where it is largest"],
    rows: rows.map(({ check, precision, ok, error, tolerance, where }) => [
      check,
      precision,
      ok ? "yes" : "NO",
      shown(error),
      shown(tolerance),
      error > 0 ? where : "",
    ]),
  };
}

/** One line for each tensor that the layer keeps of a micro-batch: between F and I, and from I on for W. */
export function keptTable({ afterForward, afterInput }: GradientReport): Table {
  const lines = [
    ...afterForward.map((each) => ({ after: "F", ...each })),
    ...afterInput.map((each) => ({ after: "I", ...each })),
  ];
  return {
    columns: ["kept after", "tensor", "shape", "type", "memory", "counted as"],
    rows: lines.map(({ after, name, shape, dtype, bytes, category }) => [
      after,
      name,
      `[${shape.join(", ")}]`,
      dtype,
      formatBytes(bytes),
      category,
    ]),
  };
}

function shown(error: number): string {
  return error === 0 || Number.isInteger(error) ? String(error) : error.toExponential(1);
}
