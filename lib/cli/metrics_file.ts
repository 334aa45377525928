/** Metrics as they come, a line of JSON each: for whoever watches a training, or draws it elsewhere. */
import { appendFileSync, readFileSync, statSync } from "node:fs";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import { writeOutput } from "../output.ts";
import type { EvaluationRecord, UpdateRecord } from "../report/training.ts";
import { shown } from "../text.ts";

/** A line of metrics: what was asked for and why it ended, an update, or an evaluation. */
export type MetricsLine =
  | { readonly kind: "run" | "end"; readonly [field: string]: unknown }
  | UpdateRecord
  | EvaluationRecord;

/** Where lines go. */
export interface Metrics {
  /** Writes a line, at once. */
  write(line: MetricsLine): void;
}

/**
 * Begins a file of metrics with the lines that it is to keep; `-` is standard output, and without a path nothing is written.
 *
 * @throws {UserError} When it cannot be written.
 */
export function openMetrics(path: string | undefined, kept: readonly MetricsLine[] = []): Metrics {
  if (path === undefined) return { write: () => {} };
  if (isPlain(path)) writeOutput(path, kept.map(textOf).join(""));
  return {
    write(line) {
      if (path === "-") return writeOutput("-", textOf(line));
      try {
        appendFileSync(path, textOf(line)); // as far as the system is told: a kill leaves whole lines but for the last
      } catch (error) {
        throw new UserError(`Cannot write ${path}: ${fileProblem(error)}`);
      }
    },
  };
}

/**
 * The lines that a file of metrics has, none where there is no such file. The last one of a killed process may be half, and is left out.
 *
 * @throws {UserError} When one is none of metrics.
 */
export function readMetrics(path: string | undefined): MetricsLine[] {
  if (path === undefined || !isPlain(path) || !statSync(path, { throwIfNoEntry: false })) return [];
  return readFileSync(path, "utf8").split("\n").slice(0, -1).map((text, index) => {
    try {
      const line = JSON.parse(text);
      if (["run", "end", "update", "evaluation"].includes(line.kind)) return line;
    } catch {
      // As said below.
    }
    throw new UserError(`Line ${index + 1} of ${shown(path)} is none of metrics: give --metrics another file`);
  });
}

/**
 * Of the lines of a training that goes on behind update `step` those that stay true: a killed one may have made more updates than it had saved,
 * which are made again.
 */
export function upTo(step: number, lines: readonly MetricsLine[]): MetricsLine[] {
  return lines.filter((line) => (line.kind !== "update" && line.kind !== "evaluation") || line.step <= step);
}

const textOf = (line: MetricsLine) => `${JSON.stringify(line)}\n`;

/** Whether there is a file, or may be one: no pipe and no device. */
const isPlain = (path: string) => path !== "-" && (statSync(path, { throwIfNoEntry: false })?.isFile() ?? true);
