/** Which schedule is fastest where: every schedule of the zoo with its best policy of 2BP, on a grid of sizes and costs. */
import { UserError } from "../errors.ts";
import { expectFields, expectValue, positive, real } from "../rules.ts";
import type { PolicyText, Schedule } from "../schedules/schedule.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { oneFOneB } from "../schedules/generators/one_f_one_b.ts";
import { unitCosts } from "../schedules/price/costs.ts";
import type { Memory } from "../schedules/price/memory.ts";
import { peaksOf } from "../schedules/price/peak_memory.ts";
import { timesOf } from "../schedules/price/simulate.ts";
import { lower } from "../schedules/program.ts";
import { twoStage } from "../schedules/transforms/two_stage.ts";
import { recipesFor } from "./recipes.ts";

/** Sizes and costs. A rank's forward of a micro-batch takes 1, on however many stages it lies, which share its work evenly. */
export interface AtlasPoint {
  /** Ranks, N. */
  readonly devices: number;
  /** M. */
  readonly microbatches: number;
  /** W over I. */
  readonly weight: number;
  /** F over I. */
  readonly forward: number;
  /** What a message between two ranks takes, in forwards of a rank; messages do not slow each other. */
  readonly message: number;
}

/** A schedule at a point, with a policy of 2BP. */
export interface AtlasEntry {
  /** Its name in the zoo. */
  readonly schedule: string;
  /**
   * Absent where it runs as it was published: each backward whole, or split by its own design. With a policy, what is split by
   * design keeps its order of F and I, and its W are placed anew for these costs: see `wholeBackward()`.
   */
  readonly policy?: PolicyText;
  /** In forwards of a rank, rounded to four digits behind the point. */
  readonly makespan: number;
  /** The most that a rank holds: activations, a rank's of one micro-batch being 1, from F until W or B; no derivatives. */
  readonly peak: number;
}

/** A point with what its schedules take. */
export interface AtlasRow extends AtlasPoint {
  /** What plain 1F1B takes, without 2BP. */
  readonly plain: number;
  /** Of each schedule of the zoo that has these sizes the policies that are best under one of {@link atlasCaps}. */
  readonly entries: readonly AtlasEntry[];
}

/** Most memory, in peaks of plain 1F1B. */
export const atlasCaps: readonly number[] = [1, 2, Infinity];

/** The points of the atlas: 2 to 16 devices, up to 64 micro-batches, W from half of I to twice, F of I and half of it, three messages. */
export function atlasGrid(): AtlasPoint[] {
  const points: AtlasPoint[] = [];
  for (const devices of [2, 4, 8, 16]) {
    for (let microbatches = devices; microbatches <= 64; microbatches *= 2) {
      for (const forward of [1, 0.5]) {
        for (const message of [0, 0.05, 0.2]) {
          for (const weight of [0.5, 1, 2]) points.push({ devices, microbatches, weight, forward, message });
        }
      }
    }
  }
  return points;
}

const ratio = real({ least: "above 0" });

/**
 * Simulates every schedule of the zoo at a point: as it was published, and with 2BP: weight gradients in idle slots (`fill`), only
 * where the split pays (`select`), at once (`every:1`), and in idle slots under one and two peaks of plain 1F1B (`cap`). What is split by
 * its own design is tried in both ways too. All have the same work: what takes several stages a rank has as many as is usual for it,
 * of equal parts.
 *
 * ```ts
 * import { atlasRanking, atlasRow } from "twobp/planning";
 *
 * const row = atlasRow({ devices: 4, microbatches: 8, weight: 1, forward: 1, message: 0 });
 * for (const { schedule, policy, makespan } of atlasRanking(row, 1)) console.log(schedule, policy, makespan);
 * ```
 *
 * @throws {UserError} For sizes that are no whole numbers of 1 or more, ratios that are not above 0, and a message below 0.
 */
export function atlasRow(point: AtlasPoint): AtlasRow {
  expectFields("atlasRow", point, {
    devices: positive,
    microbatches: positive,
    weight: ratio,
    forward: ratio,
    message: real({ least: 0 }),
  });
  const { devices, microbatches } = point;
  const [plain, unit] = [rounded(priced(oneFOneB(devices, microbatches), point).makespan), plainPeak(point)];
  const policies: PolicyText[] = ["fill", "select", "every:1", `cap:${unit}`, `cap:${2 * unit}`];
  const entries = recipesFor(devices, microbatches, Infinity).flatMap(({ base, split }): AtlasEntry[] => {
    if (!split) return [priced(base, point)];
    return policies.flatMap((policy) => {
      const made = splitBy(policy, base, point);
      return made && sizesOf(made).split ? [priced(made, point)] : []; // `select` may leave every B whole
    });
  });
  const row = { ...point, plain, entries };
  const kept = new Set(atlasCaps.flatMap((cap) => atlasRanking(row, cap)));
  return { ...row, entries: entries.filter((entry) => kept.has(entry)) };
}

/**
 * The schedules that hold at most so many peaks of plain 1F1B, each with its best policy, the fastest first. Of what is as fast, what
 * holds less comes first, and of that what needs no 2BP, in the order of the zoo.
 *
 * @throws {UserError} For a cap that is no number above 0.
 */
export function atlasRanking(row: AtlasRow, cap: number): AtlasEntry[] {
  expectValue("atlasRanking: cap", cap, {
    right: "a number above 0, or Infinity for none",
    accepts: (value) => typeof value === "number" && value > 0,
  });
  const most = cap * plainPeak(row), seen = new Set<string>();
  return row.entries.filter(({ peak }) => peak <= most)
    .sort((a, b) => a.makespan - b.makespan || a.peak - b.peak)
    .filter(({ schedule }) => !seen.has(schedule) && seen.add(schedule));
}

/** What plain 1F1B holds at most. */
function plainPeak({ devices, microbatches }: AtlasPoint): number {
  return Math.min(devices, microbatches);
}

/** The memory of a schedule with several stages a rank, each its part of the rank's. */
function memoryOf({ placement, actions }: Schedule): Memory {
  const activations = actions.length / placement.length;
  return () => ({ activations, derivatives: 0 });
}

function costsOf({ placement, actions }: Schedule, { weight, forward, message }: AtlasPoint) {
  const f = actions.length / placement.length, i = f / forward;
  return unitCosts({ f, i, w: i * weight, comm: message });
}

/** Undefined where the cap cannot be kept. */
function splitBy(policy: PolicyText, base: Schedule, point: AtlasPoint): Schedule | undefined {
  try {
    return twoStage(base, { policy, costs: costsOf(base, point), memory: memoryOf(base) });
  } catch (error) {
    if (policy.startsWith("cap") && error instanceof UserError) return undefined;
    throw error;
  }
}

function priced(schedule: Schedule, point: AtlasPoint): AtlasEntry {
  const { name, policy } = schedule, program = lower(schedule);
  const makespan = rounded(timesOf(program, costsOf(schedule, point)).makespan);
  const peak = Math.max(...peaksOf(program, memoryOf(schedule)));
  return { schedule: name, ...policy && { policy }, makespan, peak };
}

/** Without what sums of the same costs in another order differ by. */
function rounded(time: number): number {
  return Number(time.toFixed(4));
}
