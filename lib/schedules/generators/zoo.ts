/**
 * The schedules that there are: one row each. A new one is a generator in a file of its own and a row here; commands, benches and
 * plans take it from the table.
 *
 * @module
 */
import type { Schedule } from "../schedule.ts";
import { dualPipeV } from "./dualpipe_v.ts";
import { gpipe } from "./gpipe.ts";
import { hanayo } from "./hanayo.ts";
import { interleaved } from "./interleaved.ts";
import { naive } from "./naive.ts";
import { oneFOneB } from "./one_f_one_b.ts";
import { oneFOneBV, peak1F1BV } from "./one_f_one_b_v.ts";
import { vHalf, vMin, zbV } from "./v_shape.ts";
import { zbH1, zbH2 } from "./zero_bubble.ts";

/** What a paper promises of a schedule whose F, I and W each take 1, for M micro-batches on N ranks with M at least 2N. */
export interface Published {
  /** Idle time of the slowest rank between its first action and its last. */
  bubble(devices: number, microbatches: number): number;
  /** The most activations, of a micro-batch on a stage, that any rank holds at once, each from its F to its W or B. */
  peak(devices: number, microbatches: number, chunks: number): number;
  /** Whether the bubble is rounded up: the schedule's own is at most that. */
  readonly isBound?: true;
}

/** A schedule of the 2BP paper (arXiv 2405.18047), which has its closed form, with F, I and W of 1. */
export interface PaperTwoStage {
  /** Idle time of a rank with 2BP; without it `published.bubble` holds for its usual number of micro-batches too. */
  bubble(devices: number): number;
  /** Whether all W of a stage are one at the end, all micro-batches concatenated; else they fill idle slots. */
  readonly joined?: true;
}

/** What there is to say about a schedule. */
export interface ZooEntry {
  /** What `generate()` calls it. */
  readonly name: string;
  /** Where it comes from. */
  readonly paper: string;
  /** The schedule that this one is, where the name only says another usual number of micro-batches. */
  readonly sameAs?: string;
  /** The usual number of micro-batches on so many ranks. */
  microbatches(devices: number): number;
  /** Stages on each rank; the usual number of them where it is `chunked`. */
  readonly chunks: number;
  /** Whether it takes other numbers of stages a rank. */
  readonly isChunked?: true;
  /** How stages are placed: one a rank in order, dealt out in turn, down the ranks and up again, or that again and again. */
  readonly placement: "linear" | "interleaved" | "V" | "zigzag";
  /** What its paper promises. */
  readonly published: Published;
  /** What the 2BP paper says of it, where it does. */
  readonly twoStage?: PaperTwoStage;
  /** Makes it. */
  make(devices: number, microbatches: number, chunks: number): Schedule;
}

const twiceAsMany = (devices: number) => 2 * devices;
const asMany = (devices: number) => devices;
const onePerRank = { chunks: 1, placement: "linear" } as const;
const onV = { chunks: 2, placement: "V", microbatches: twiceAsMany } as const;

const published1F1B: Published = {
  bubble: (n) => 3 * (n - 1),
  peak: (n, m) => Math.min(n, m),
};

/** Every schedule that `generate()` makes. */
export const zoo: readonly ZooEntry[] = [
  {
    ...onePerRank,
    name: "naive",
    paper: "model parallelism without a pipeline",
    microbatches: () => 1,
    published: { bubble: (n, m) => 3 * (n - 1) * m, peak: () => 1 },
    twoStage: { bubble: (n) => 2 * (n - 1) },
    make: naive,
  },
  {
    ...onePerRank,
    name: "gpipe",
    paper: "GPipe, arXiv 1811.06965",
    microbatches: asMany,
    published: { bubble: (n) => 3 * (n - 1), peak: (_, m) => m },
    twoStage: { bubble: (n) => 2 * (n - 1), joined: true },
    make: gpipe,
  },
  {
    ...onePerRank,
    name: "1f1b-1",
    paper: "2BP, arXiv 2405.18047: 1F1B with as many micro-batches as ranks",
    sameAs: "1f1b",
    microbatches: asMany,
    published: published1F1B,
    twoStage: { bubble: (n) => n - 1 },
    make: (devices, microbatches) => oneFOneB(devices, microbatches, "1f1b-1"),
  },
  {
    ...onePerRank,
    name: "1f1b-2",
    paper: "2BP, arXiv 2405.18047: 1F1B with twice as many micro-batches as ranks",
    sameAs: "1f1b",
    microbatches: twiceAsMany,
    published: published1F1B,
    twoStage: { bubble: (n) => n - 1 },
    make: (devices, microbatches) => oneFOneB(devices, microbatches, "1f1b-2"),
  },
  {
    ...onePerRank,
    name: "1f1b",
    paper: "PipeDream-flush, arXiv 2006.09503; bubble and peak in arXiv 2401.10241, table 2",
    microbatches: twiceAsMany,
    published: published1F1B,
    make: (devices, microbatches) => oneFOneB(devices, microbatches),
  },
  {
    name: "interleaved-1f1b",
    paper: "Megatron-LM, arXiv 2104.04473, section 2.2; peak in arXiv 2205.05198, section 4.2.3",
    microbatches: twiceAsMany,
    chunks: 2,
    isChunked: true,
    placement: "interleaved",
    // In units of a chunk: 1F1B's over their number, and its peak times 1 + (N - 1) / (chunks N).
    published: { bubble: (n) => 3 * (n - 1), peak: (n, m, chunks) => Math.min(m * chunks, n * (chunks + 1) - 1) },
    make: interleaved,
  },
  {
    name: "hanayo",
    paper: "Hanayo, arXiv 2308.15762: two stages a rank for each wave",
    microbatches: asMany,
    chunks: 2,
    isChunked: true,
    placement: "zigzag",
    // In units of a chunk: of one round, which the paper's ratio (2N - 2) / (3NW + N - 1) for W waves is above, and of each further one.
    published: {
      bubble: (n, m) => n > 1 ? 4 * (n - 1) + (m / n - 1) * (2 * n - 3) : 0,
      peak: (n, m, chunks) => chunks * Math.min(n, m),
    },
    make: hanayo,
  },
  {
    ...onV,
    name: "1f1b-v",
    paper: "Controllable Memory, arXiv 2405.15362: two thirds of 1F1B's peak, in halves of a rank's stages",
    published: { bubble: (n) => 4 * (n - 1) + 6 * Math.floor((n - 1) / 3), peak: peak1F1BV },
    make: oneFOneBV,
  },
  {
    ...onePerRank,
    name: "zb-h1",
    paper: "Zero Bubble, arXiv 2401.10241, table 2: a third of 1F1B's bubble",
    microbatches: twiceAsMany,
    published: { bubble: (n) => n - 1, peak: (n) => n },
    make: zbH1,
  },
  {
    ...onePerRank,
    name: "zb-h2",
    paper: "Zero Bubble, arXiv 2401.10241, table 2",
    microbatches: twiceAsMany,
    published: { bubble: () => 0, peak: (n) => 2 * n - 1 },
    make: zbH2,
  },
  {
    ...onV,
    name: "zb-v",
    paper: "Zero Bubble, arXiv 2401.10241, section 6: 1F1B's peak, in halves of a rank's stages",
    published: { bubble: () => 0, peak: (n) => 2 * n },
    make: zbV,
  },
  {
    ...onV,
    name: "v-half",
    paper: "Controllable Memory, arXiv 2405.15362: half of 1F1B's bubble, and of its peak",
    published: { bubble: (n) => 3 * (n - 1), peak: (n) => 2 * Math.floor((n + 2) / 2), isBound: true },
    make: vHalf,
  },
  {
    ...onV,
    name: "v-min",
    paper: "Controllable Memory, arXiv 2405.15362: two thirds of 1F1B's bubble, and a third of its peak",
    // Where N is a multiple of 3 two blocks would collide, and a gap costs one unit.
    published: {
      bubble: (n) => 4 * (n - 1) + (n % 3 === 0 ? 1 : 0),
      peak: (n) => 2 * Math.floor((n + 4) / 3),
      isBound: true,
    },
    make: vMin,
  },
  {
    ...onV,
    name: "dualpipe-v",
    paper: "DualPipe, arXiv 2412.19437, section 3.2: (N - 1)(F&B + B - 3W), and PP + 1 activations for PP = 2N stages",
    // The formula has a forward end together with the backward that it overlaps, where here it runs, and sends, before it.
    published: { bubble: (n) => 2 * (n - 1), peak: (n) => 2 * n + 1, isBound: true },
    make: dualPipeV,
  },
];
