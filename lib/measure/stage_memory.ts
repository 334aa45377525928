/** What each stage of a model holds, from shapes alone: the memory model that plans are made with. */
import type { LedgerPoint } from "../gpu/ledger_timeline.ts";
import type { Layer } from "../layers/layer.ts";
import { sequential } from "../layers/sequential.ts";
import { isRead } from "../layers/sums.ts";
import { type Category, padded } from "../memory.ts";
import type { Model } from "../models/model.ts";
import { partition } from "../runtime/partition.ts";
import { stagesAhead, withRecompute } from "../runtime/recompute.ts";
import { sumsOf } from "../runtime/sums.ts";
import { expectValue, listOf, positive, whole } from "../rules.ts";
import type { AheadMemory, SlotMemory, StageMemory } from "../schedules/price/memory.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { bytesOf } from "../tensor.ts";
import { blankBatch, dryPipeline, type MemoryOptions } from "./memory.ts";
import { type TakenBy, takenIn, trial, type Tried } from "./trial.ts";

/** What the model is cut into, and what it is for. */
export interface StageMemoryOptions extends MemoryOptions {
  /** Number of stages, where neither `parts` nor `placement` says it. */
  readonly stages?: number;
  /** The rank of each stage, as in a schedule; one stage a rank by default. */
  readonly placement?: readonly number[];
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** Most micro-batches in one W of the schedules that it is for; 1 by default. */
  readonly width?: number;
}

/**
 * The memory model of each stage: what F, I, W and B of a micro-batch take, keep, give back and need while they run, so that
 * `peakMemory` of any schedule with this placement is what its step needs (`RankPeak.needed`). Found by running a few
 * micro-batches with shapes alone, on dry devices, and reading the ledgers. What a rank holds all the time, and while the step
 * ends, is said of its first stage.
 *
 * ```ts
 * import { adamw, createModel, generate, twoStage } from "twobp";
 * import { stageMemories } from "twobp/measure";
 * import { peakMemory } from "twobp/schedules";
 *
 * const stages = await stageMemories(createModel("llama-tiny"), { stages: 4, samples: 4, optimizer: adamw() });
 * const memory = (stage: number) => stages[stage];
 * const schedule = twoStage(generate("1f1b-2", { devices: 4 }), { policy: "cap:16777216", memory });
 * console.log(peakMemory(schedule, memory));
 * ```
 *
 * @throws {UserError} When `stages`, `samples` or `width` is no whole number of 1 or more, `placement` no list of ranks, or there are
 * fewer layers than stages.
 */
export async function stageMemories(model: Model, options: StageMemoryOptions): Promise<readonly StageMemory[]> {
  const { samples, width = 1 } = options;
  expectValue("stageMemories: samples", samples, positive);
  expectValue("stageMemories: width", width, positive);
  if (options.placement !== undefined) expectValue("stageMemories: placement", options.placement, listOf(whole(0)));
  const parts = options.parts ?? partition(model, options.placement ?? options.stages ?? 1);
  const placement = options.placement ?? parts.map((_, stage) => stage);
  const ahead = stagesAhead(withRecompute(parts, options.recompute));
  const { schedule, tried } = trial(placement, width, ahead.length > 0);
  const { devices, microbatches } = sizesOf(schedule);
  const pipeline = dryPipeline(model, devices, { ...options, parts, placement });
  let timelines: readonly (readonly LedgerPoint[])[];
  try {
    const batch = blankBatch(model, microbatches * samples * pipeline.replicas);
    // Replicas are alike, but for pieces of a sharded optimizer, of which the last has the largest.
    timelines = (await pipeline.step(schedule, batch, { timeline: true })).timeline!.slice(-devices);
  } finally {
    pipeline.close();
  }
  const taken = takenIn(timelines);
  const handed = handedOver(placement, taken, tried);
  const inputs = inputsOf(model, parts, options);
  const arriving = arrivingAt(placement, inputs, options);
  const sums = placement.map((rank, stage) => heldForSum(timelines[rank], stage));
  const heldBy = (rank: number) => placement.reduce((all, each, stage) => each === rank ? all + sums[stage] : all, 0);
  return placement.map((rank, stage) => ({
    ...(placement.indexOf(rank) === stage ? atRest(timelines[rank], heldBy(rank)) : {}),
    ...(sums[stage] > 0 ? { sum: sums[stage] } : {}),
    ...(stage === placement.length - 1
      ? { losses: taken(stage, "F", tried.alone).before.workspace / microbatches }
      : {}),
    ...inFlight(stage, handed, taken, tried, arriving[stage]),
    ...options.apart ? { arriving: arriving[stage] } : {},
    ...ahead.includes(stage) ? { ahead: heldAhead(stage, handed, taken, tried) } : {},
    input: {
      F: handed.isHanded(stage) ? handed.inputs.F[stage] : inputs[stage].F.bytes,
      I: handed.isHanded(stage + 1) ? handed.inputs.I[stage] : inputs[stage].I.bytes,
    },
    slots: slotsOf(stage, handed, taken, tried, inputs),
  }));
}

/** What the sum of a stage's gradients over replicas takes when it begins; it holds it until the step ends. */
function heldForSum(timeline: readonly LedgerPoint[], stage: number): number {
  const points = timeline.filter(({ action }) => action === `sum ${stage}`);
  return points.length > 0 ? points[points.length - 1].needed - points[0].needed : 0;
}

/** What is there before the first action of a rank, and what the end of its step needs, with so much that sums hold when that begins. */
function atRest(timeline: readonly LedgerPoint[], sums: number): Partial<StageMemory> {
  const { parameters, gradients, optimizer } = timeline[0].categories;
  const ending = timeline.filter(({ action }) => action === "optimizer");
  const update = Math.max(...ending.map(({ needed }) => needed)) - ending[0].needed + sums;
  return { parameters, gradients, optimizer, update };
}

/** What the stages of a rank give to one another, by the stage that receives it. */
interface Handed {
  /** Whether the stage before is on the same rank. */
  readonly isHanded: (stage: number) => boolean;
  /** The bytes of its input. */
  readonly inputs: Record<"F" | "I", readonly number[]>;
  /** The part of its input that the stage before keeps too. */
  readonly shared: readonly number[];
  /** What of F's activations and I's derivatives a stage leaves to others of its rank, less what was there for it already. */
  readonly given: Record<"F" | "I", (stage: number) => number>;
}

/**
 * Whatever a stage takes in one category and does not give back, another gives back for it. What both keep of one tensor goes
 * with the last: with the W of the receiver where all I come first, and with the I of the stage before where each W comes at once.
 */
function handedOver(placement: readonly number[], taken: TakenBy, { alone, atOnce }: Tried): Handed {
  const stages = placement.map((_, stage) => stage);
  const isHanded = (stage: number) => stage > 0 && placement[stage - 1] === placement[stage];
  const rest = (stage: number, category: Category, microbatch: number) =>
    (["F", "I", "W"] as const).reduce((sum, kind) => sum + taken(stage, kind, microbatch).change[category], 0);
  const activations = (microbatch: number) =>
    stages.reduceRight<number[]>((inputs, stage) => {
      inputs[stage] = (isHanded(stage + 1) ? inputs[stage + 1] : 0) - rest(stage, "activations", microbatch);
      return inputs;
    }, []);
  const F = activations(alone), apart = activations(atOnce);
  const I = stages.reduce<number[]>((inputs, stage) => {
    inputs[stage] = (isHanded(stage) ? inputs[stage - 1] : 0) - rest(stage, "derivatives", alone);
    return inputs;
  }, []);
  const shared = stages.map((stage) => F[stage] - apart[stage]);
  return {
    isHanded,
    inputs: { F, I },
    shared,
    given: {
      F: (stage) => (isHanded(stage + 1) ? F[stage + 1] - shared[stage + 1] : 0) - F[stage],
      I: (stage) => (isHanded(stage) ? I[stage - 1] : 0) - I[stage],
    },
  };
}

/** What one micro-batch takes, where its W takes no other. */
function inFlight(
  stage: number,
  { shared, given }: Handed,
  taken: TakenBy,
  { alone, whole, atOnce }: Tried,
  arriving: Record<"F" | "I", number>,
): StageMemory {
  const [f, i, w] = (["F", "I", "W"] as const).map((kind) => taken(stage, kind, alone));
  const before = taken(stage, "F", whole);
  const reused = (stage: number) => taken(stage, "I", alone).need - taken(stage, "I", atOnce).need;
  return {
    activations: f.change.activations - given.F(stage),
    released: -taken(stage, "I", atOnce).change.activations,
    derivatives: i.change.derivatives - given.I(stage),
    whole: before.change.activations - given.F(stage),
    ...(shared[stage] > 0 ? { shared: { kept: shared[stage], reused: reused(stage - 1) } } : {}),
    // What comes in counts as a message too.
    staging: { F: f.sent - arriving.F, I: i.sent - arriving.I },
    workspace: {
      F: Math.max(f.need - f.change.activations, before.need - before.change.activations),
      I: i.need - i.change.derivatives,
      W: w.need,
      B: taken(stage, "B", whole).need - given.I(stage),
    },
  };
}

/** What an R takes ahead of a backward, and what that needs then. */
function heldAhead(stage: number, { given }: Handed, taken: TakenBy, { alone, ahead }: Tried): AheadMemory {
  const { need, change } = taken(stage, "R", ahead.I);
  return {
    activations: change.activations,
    workspace: {
      R: need - change.activations,
      I: taken(stage, "I", ahead.I).need - taken(stage, "I", alone).change.derivatives,
      B: taken(stage, "B", ahead.B).need - given.I(stage),
    },
  };
}

/** A stage's input, x of F or dy of I. */
interface Input {
  /** As the stage holds it. */
  readonly bytes: number;
  /** As it travels. */
  readonly sent: number;
  /** Whether W reads it, so that it lies in a slot. */
  readonly inSlot: boolean;
}

function inputsOf(
  model: Model,
  parts: readonly (readonly Layer[])[],
  { samples, recompute, sums, precision }: StageMemoryOptions,
): Record<"F" | "I", Input>[] {
  let shape = model.inputShape(samples);
  const makers = sumsOf(sums, parts.length);
  return withRecompute(parts, recompute).map((layers, stage) => {
    const { reads, outputShape } = sequential(layers), x = shape, y = shape = outputShape(x);
    const input = (shape: readonly number[] | undefined, inSlot: boolean): Input => {
      const exact = shape ? bytesOf(shape, precision === "mixed" ? "f16" : "f32") : 0;
      return { bytes: shape ? padded(exact) : 0, sent: Math.ceil(exact / 4) * 4, inSlot };
    };
    return {
      F: input(stage > 0 ? x : undefined, isRead(reads.input, makers[stage])),
      I: input(stage < parts.length - 1 ? y : undefined, isRead(reads.gradient, makers[stage])),
    };
  });
}

/** What the inputs of each stage that come from other ranks are received in; nothing within a process. */
function arrivingAt(
  placement: readonly number[],
  inputs: readonly Record<"F" | "I", Input>[],
  { apart = false }: StageMemoryOptions,
): Record<"F" | "I", number>[] {
  const isElsewhere = (stage: number, from: number) => apart && placement[from] !== placement[stage];
  return inputs.map(({ F, I }, stage) => ({
    F: isElsewhere(stage, stage - 1) ? F.sent : 0,
    I: isElsewhere(stage, stage + 1) ? I.sent : 0,
  }));
}

/** What is different where micro-batches share their W: nothing is known of it for a width of 1. */
function slotsOf(
  stage: number,
  { isHanded, shared }: Handed,
  taken: TakenBy,
  { groups }: Tried,
  inputs: readonly Record<"F" | "I", Input>[],
): SlotMemory {
  if (groups.length === 0) return { activations: 0, derivatives: 0, released: 0, groups: [] };
  const [[one, other]] = groups;
  const slot = (kind: "F" | "I", category: Category) =>
    (taken(stage, kind, one).change[category] - taken(stage, kind, other).change[category]) / 2;
  const moved = -slot("I", "activations");
  const workspace = (kind: "F" | "I", microbatch: number) => {
    const { need, change } = taken(stage, kind, microbatch);
    return need - change[kind === "F" ? "activations" : "derivatives"];
  };
  const slotted = (at: number, kind: "F" | "I") => inputs[at][kind].inSlot ? inputs[at][kind].bytes : 0;
  const [before, after] = [isHanded(stage), isHanded(stage + 1)];
  const takenBefore = { F: before ? slotted(stage, "F") : 0, I: after ? slotted(stage, "I") : 0 };
  const takenFor = { F: after ? slotted(stage + 1, "F") : 0, I: before ? slotted(stage - 1, "I") : 0 };
  return {
    activations: slot("F", "activations") + takenBefore.F - takenFor.F,
    derivatives: slot("I", "derivatives") + takenBefore.I - takenFor.I,
    released: (after ? shared[stage + 1] : 0) - taken(stage, "I", other).change.activations,
    moved,
    input: { F: slotted(stage, "F"), I: slotted(stage, "I") },
    workspace: { F: workspace("F", other), I: workspace("I", other) },
    groups: groups.map((group) => ({
      F: workspace("F", group[0]),
      I: workspace("I", group[0]) + group.length * moved,
      W: taken(stage, "W", ...group).need,
    })),
  };
}
