/** Metrics as they come, a line of JSON each: for whoever watches a training, or draws it elsewhere. */
import { appendFileSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import { writeOutput } from "../output.ts";
import type { EvaluationRecord, UpdateRecord } from "../report/training.ts";
import { shown } from "../text.ts";

/** A line of metrics: what was asked for, an update, an evaluation, or why it ended. */
export type MetricsLine =
  | { readonly kind: "run" | "end"; readonly [field: string]: unknown }
  | UpdateRecord
  | EvaluationRecord;

/** Where lines go. */
export interface Metrics {
  /** What the file had of the steps that a resumed training does not make again. */
  readonly earlier: readonly (UpdateRecord | EvaluationRecord)[];
  /** Writes a line, at once. */
  write(line: MetricsLine): void;
}

/**
 * Begins a file of metrics; `-` is standard output, and without a path nothing is written. A training that goes on behind step `after` keeps the
 * lines up to there: those of later steps, which a killed one had made and not saved, are made again.
 *
 * @throws {UserError} When the file cannot be read or written, or a line that is to stay is none of metrics.
 */
export function openMetrics(path: string | undefined, after = 0): Metrics {
  if (path === undefined) return { earlier: [], write: () => {} };
  const isFile = path !== "-" && (statSync(path, { throwIfNoEntry: false })?.isFile() ?? true);
  const lines = isFile && after > 0 ? kept(path, after) : [];
  if (isFile) writeOutput(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  return {
    earlier: lines.filter((line) => line.kind === "update" || line.kind === "evaluation"),
    write(line) {
      const text = `${JSON.stringify(line)}\n`;
      if (path === "-") return writeOutput("-", text);
      try {
        if (isFile) appendFileSync(path, text);
        else writeFileSync(path, text);
      } catch (error) {
        throw new UserError(`Cannot write ${path}: ${fileProblem(error)}`);
      }
    },
  };
}

/** The lines of the steps up to `after`, in their order. */
function kept(path: string, after: number): MetricsLine[] {
  if (!statSync(path, { throwIfNoEntry: false })) return [];
  const lines = readFileSync(path, "utf8").split("\n");
  return lines.flatMap((text, index) => {
    if (text === "" || index === lines.length - 1) return []; // the last one of a killed process may be half
    let line: MetricsLine;
    try {
      line = JSON.parse(text);
      if (!["run", "end", "update", "evaluation"].includes(line.kind)) throw new Error();
    } catch {
      throw new UserError(`Line ${index + 1} of ${shown(path)} is not of metrics: give --metrics another file`);
    }
    return (line.kind === "update" || line.kind === "evaluation") && line.step > after ? [] : [line];
  });
}
