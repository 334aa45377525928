import { UserError } from "../../errors.ts";
import { anything, expectFields, type Rules } from "../../rules.ts";
import type { Schedule } from "../schedule.ts";
import { checkCells, checkWhole } from "../check/sizes.ts";
import { zoo } from "./zoo.ts";

/** Sizes of a schedule to generate. */
export interface GenerateOptions {
  /** Number of ranks, N. */
  devices: number;
  /** Number of micro-batches, M; each schedule has its usual one as the default. */
  microbatches?: number;
  /** Stages on each rank, for the schedules that leave it open; default 2. */
  chunks?: number;
}

/** The names that `generate()` knows. */
export const scheduleNames: readonly string[] = zoo.map(({ name }) => name);

/** In their own words, where they are checked: here it is for names that do not exist. */
const rules: Rules<GenerateOptions> = { devices: anything, microbatches: anything, chunks: anything };

/**
 * Makes the schedule of that name.
 *
 * @example
 * ```ts
 * import { generate } from "twobp";
 *
 * const schedule = generate("1f1b-1", { devices: 4 });
 * console.log(schedule.placement.length, schedule.actions[3].length); // 4 8
 * ```
 *
 * @throws {UserError} For a name it does not know, or sizes the schedule is not defined for.
 */
export function generate(name: string, options: GenerateOptions): Schedule {
  const entry = zoo.find((each) => each.name === name);
  if (!entry) throw new UserError(`Unknown schedule "${name}"; the schedules are ${scheduleNames.join(", ")}`);
  expectFields(name, options, rules);
  const { devices, chunks } = options;
  checkWhole(name, { devices });
  const microbatches = options.microbatches ?? entry.microbatches(devices);
  checkWhole(name, { "micro-batches": microbatches, chunks: chunks ?? 1 });
  if (chunks !== undefined && !entry.isChunked) {
    const chunked = zoo.filter(({ isChunked }) => isChunked).map((each) => each.name);
    throw new UserError(`${name} fixes its stages a rank; only ${chunked.join(" and ")} take chunks`);
  }
  checkCells(name, devices * (chunks ?? 1), microbatches);
  return entry.make(devices, microbatches, chunks ?? entry.chunks);
}
