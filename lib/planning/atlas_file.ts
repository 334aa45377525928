/** The atlas as a small file: JSON with a line of text for each point. */
import { UserError } from "../errors.ts";
import type { PolicyText } from "../schedules/schedule.ts";
import { parsePolicy } from "../schedules/transforms/policy.ts";
import { quoted } from "../text.ts";
import type { AtlasEntry, AtlasRow } from "./atlas.ts";

/** An atlas as JSON. */
export interface Atlas {
  /** Version of the form. */
  readonly schema: 1;
  /** Nothing of it was measured. */
  readonly mode: "simulated";
  /** How a row is to be read. */
  readonly reading: string;
  /** Names, which rows have the indices of. */
  readonly schedules: readonly string[];
  /** A point each. */
  readonly rows: readonly string[];
}

const reading =
  "devices, micro-batches, W/I, F/I, message, step of plain 1F1B; then for each schedule its index, policy of 2BP " +
  "or -, step, and peak of activations of a rank. Times are in forwards of a rank, activations in those of a micro-batch on a rank";

/** Writes an atlas. */
export function formatAtlas(rows: readonly AtlasRow[]): Atlas {
  const schedules = [...new Set(rows.flatMap(({ entries }) => entries.map(({ schedule }) => schedule)))];
  return {
    schema: 1,
    mode: "simulated",
    reading,
    schedules,
    rows: rows.map(({ devices, microbatches, weight, forward, message, plain, entries }) =>
      [
        [devices, microbatches, weight, forward, message, plain],
        ...entries.map((
          { schedule, policy = "-", makespan, peak },
        ) => [schedules.indexOf(schedule), policy, makespan, peak]),
      ].map((words) => words.join(" ")).join("; ")
    ),
  };
}

/**
 * Reads an atlas, as `deno task bench atlas --json` writes it.
 *
 * ```ts
 * import { atlasRow, formatAtlas, readAtlas } from "twobp/planning";
 *
 * const row = atlasRow({ devices: 2, microbatches: 4, weight: 1, forward: 1, message: 0 });
 * console.log(readAtlas(formatAtlas([row])).length); // 1
 * ```
 *
 * @throws {UserError} For what is none: it quotes what is wrong.
 */
export function readAtlas(atlas: unknown): AtlasRow[] {
  const { schema, schedules, rows } = (typeof atlas === "object" && atlas !== null ? atlas : {}) as Partial<Atlas>;
  if (schema !== 1 || !Array.isArray(schedules) || !Array.isArray(rows)) {
    throw new UserError(
      'An atlas is an object with "schema": 1, "schedules" and "rows", as bench atlas --json writes it',
    );
  }
  return rows.map((text): AtlasRow => {
    const [point, ...entries] = String(text).split("; ").map((part) => part.split(" "));
    const [devices, microbatches, weight, forward, message, plain, ...more] = point.map(Number);
    const row = { devices, microbatches, weight, forward, message, plain };
    const isWhole = more.length === 0 && Object.values(row).every((value) => Number.isFinite(value));
    const read = entries.map((words) => entryOf(words, schedules));
    if (isWhole && read.length > 0 && read.every((entry) => entry !== undefined)) return { ...row, entries: read };
    throw new UserError(`${quoted(String(text))} is no row of an atlas; a row has ${reading}`);
  });
}

function entryOf(words: readonly string[], schedules: readonly unknown[]): AtlasEntry | undefined {
  const [index, policy, makespan, peak] = words, schedule = schedules[Number(index)];
  if (words.length !== 4 || typeof schedule !== "string") return undefined;
  if (!Number.isFinite(Number(makespan)) || !Number.isFinite(Number(peak))) return undefined;
  const times = { makespan: Number(makespan), peak: Number(peak) };
  if (policy === "-") return { schedule, ...times };
  parsePolicy(policy); // says what is wrong
  return { schedule, policy: policy as PolicyText, ...times };
}
