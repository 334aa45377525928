import { UserError } from "../../errors.ts";
import { anything, expectFields, type Rules } from "../../rules.ts";
import type { Schedule } from "../schedule.ts";
import { dualPipeV } from "./dualpipe_v.ts";
import { gpipe } from "./gpipe.ts";
import { interleaved } from "./interleaved.ts";
import { naive } from "./naive.ts";
import { oneFOneB } from "./one_f_one_b.ts";
import { checkCells, checkWhole } from "../check/sizes.ts";
import { vHalf, vMin, zbV } from "./v_shape.ts";
import { zbH1, zbH2 } from "./zero_bubble.ts";

/** Sizes of a schedule to generate. */
export interface GenerateOptions {
  /** Number of ranks, N. */
  devices: number;
  /** Number of micro-batches, M; each schedule has its usual one as the default. */
  microbatches?: number;
  /** Stages on each rank, for the schedules that leave it open; default 2. */
  chunks?: number;
}

interface Generator {
  /** The usual number of micro-batches on so many devices. */
  microbatches: (devices: number) => number;
  make: (devices: number, microbatches: number, chunks: number) => Schedule;
  /** Takes any number of stages a rank. */
  chunked?: true;
}

const generators: Record<string, Generator> = {
  "naive": { microbatches: () => 1, make: naive },
  "gpipe": { microbatches: (n) => n, make: gpipe },
  "1f1b-1": { microbatches: (n) => n, make: (n, m) => oneFOneB(n, m, "1f1b-1") },
  "1f1b-2": { microbatches: (n) => 2 * n, make: (n, m) => oneFOneB(n, m, "1f1b-2") },
  "1f1b": { microbatches: (n) => 2 * n, make: (n, m) => oneFOneB(n, m) },
  "interleaved-1f1b": { microbatches: (n) => 2 * n, make: interleaved, chunked: true },
  "zb-h1": { microbatches: (n) => 2 * n, make: zbH1 },
  "zb-h2": { microbatches: (n) => 2 * n, make: zbH2 },
  "zb-v": { microbatches: (n) => 2 * n, make: zbV },
  "v-half": { microbatches: (n) => 2 * n, make: vHalf },
  "v-min": { microbatches: (n) => 2 * n, make: vMin },
  "dualpipe-v": { microbatches: (n) => 2 * n, make: dualPipeV },
};

/** The names that `generate()` knows. */
export const scheduleNames: readonly string[] = Object.keys(generators);

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
  const generator = Object.hasOwn(generators, name) ? generators[name] : undefined;
  if (!generator) throw new UserError(`Unknown schedule "${name}"; the schedules are ${scheduleNames.join(", ")}`);
  expectFields(name, options, rules);
  const { devices, chunks } = options;
  checkWhole(name, { devices });
  const microbatches = options.microbatches ?? generator.microbatches(devices);
  checkWhole(name, { "micro-batches": microbatches, chunks: chunks ?? 1 });
  if (chunks !== undefined) {
    if (!generator.chunked) throw new UserError(`${name} fixes its stages a rank; only interleaved-1f1b takes chunks`);
  }
  checkCells(name, devices * (chunks ?? 1), microbatches);
  return generator.make(devices, microbatches, chunks ?? 2);
}
