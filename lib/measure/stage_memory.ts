/** What each stage of a model holds, from shapes alone: the memory model that plans are made with. */
import type { Category } from "../gpu/ledger.ts";
import type { LedgerPoint } from "../gpu/ledger_timeline.ts";
import type { Layer } from "../layers/layer.ts";
import type { Model } from "../models/model.ts";
import { partition } from "../runtime/partition.ts";
import { expectValue, positive } from "../rules.ts";
import type { Action, Kind, Schedule } from "../schedules/schedule.ts";
import type { StageMemory } from "../schedules/price/memory.ts";
import { blankBatch, dryPipeline, type MemoryOptions } from "./memory.ts";
import { sizesOf } from "../schedules/check/sizes.ts";

/** What the model is cut into, and what it is for. */
export interface StageMemoryOptions extends MemoryOptions {
  /** Number of stages, where `parts` does not say it. */
  readonly stages?: number;
  /** Samples in a micro-batch. */
  readonly samples: number;
}

/**
 * The memory model of each stage: what F, I, W and B of a micro-batch take, keep, give back and hold while they run. Found by
 * running one and two micro-batches with shapes alone, each stage on a dry device of its own, and reading the ledgers: it
 * takes as long as a few steps of two micro-batches, and then serves every schedule, policy and width.
 *
 * ```ts
 * import { adamw, createModel, generate, peakMemory, stageMemories, twoStage } from "twobp";
 *
 * const stages = await stageMemories(createModel("llama-tiny"), { stages: 4, samples: 4, optimizer: adamw() });
 * const memory = (stage: number) => stages[stage];
 * const schedule = twoStage(generate("1f1b-2", { devices: 4 }), { policy: "cap:16777216", memory });
 * console.log(peakMemory(schedule, memory));
 * ```
 *
 * @throws {UserError} When `stages` or `samples` is no whole number of 1 or more, or there are fewer layers than stages.
 */
export async function stageMemories(model: Model, options: StageMemoryOptions): Promise<readonly StageMemory[]> {
  const { stages = 1, samples } = options;
  expectValue("stageMemories: samples", samples, positive);
  const parts: readonly (readonly Layer[])[] = options.parts ?? partition(model, stages);
  const count = parts.length;
  const pipeline = dryPipeline(model, count, { ...options, parts, placement: parts.map((_, stage) => stage) });
  const batch = (microbatches: number) => blankBatch(model, microbatches * samples);
  try {
    const run = async (kinds: readonly [Kind, ...number[]][]) => {
      const schedule = chain(count, kinds);
      return (await pipeline.step(schedule, batch(sizesOf(schedule).microbatches), { timeline: true })).timeline!;
    };
    const alone = await run([["F", 0], ["I", 0], ["W", 0]]);
    const joined = await run([["F", 0], ["F", 1], ["I", 0], ["I", 1], ["W", 0, 1]]);
    const whole = await run([["F", 0], ["B", 0]]);
    const last = (name: "F" | "I", stage: number) => sentBy(alone[stage], `${stage}${name}0`);
    return parts.map((_, stage) => ({
      ...atRest(alone[stage], stage),
      ...inFlight(stage, alone[stage], joined[stage], whole[stage]),
      input: {
        F: stage > 0 ? padded(last("F", stage - 1)) : 0,
        I: stage < count - 1 ? padded(last("I", stage + 1)) : 0,
      },
      messages: { F: last("F", stage), I: last("I", stage) },
    }));
  } finally {
    pipeline.close();
  }
}

/** The same actions on every stage, one stage a rank. */
function chain(stages: number, kinds: readonly (readonly [Kind, ...number[]])[]): Schedule {
  const actions = Array.from(
    { length: stages },
    (_, stage) => kinds.map(([kind, ...microbatches]): Action => ({ kind, stage, microbatches })),
  );
  return {
    name: "chain",
    placement: Array.from({ length: stages }, (_, stage) => stage),
    actions,
  };
}

type Timeline = readonly LedgerPoint[];

/** What is there before the first action; the losses of a step's micro-batches wait on the last stage. */
function atRest(timeline: Timeline, stage: number): Partial<StageMemory> {
  const { parameters, gradients, optimizer } = timeline[0].categories;
  const losses = during(timeline, `${stage}F0`)[0].categories.workspace;
  return { parameters, gradients, optimizer, ...(losses > 0 ? { losses } : {}) };
}

/** What one micro-batch takes, from a run of it alone, one of two that share their W, and one with a whole backward. */
function inFlight(stage: number, alone: Timeline, joined: Timeline, whole: Timeline): StageMemory {
  const change = (timeline: Timeline, action: string, category: Category) => {
    const points = during(timeline, stage + action);
    return points[points.length - 1].categories[category] - points[0].categories[category];
  };
  const extra = (timeline: Timeline, action: string, taken: number) =>
    highestWithin(during(timeline, stage + action)) - taken;
  const activations = change(alone, "F0", "activations");
  const derivatives = change(alone, "I0", "derivatives");
  const w = extra(alone, "W0", 0);
  const both = { F: "activations", I: "derivatives" } as const;
  const shared = (kind: "F" | "I", index: 0 | 1) => change(joined, `${kind}${index}`, both[kind]);
  const moved = (change(joined, "I1", "activations") - change(joined, "I0", "activations")) / 2;
  const within = (index: 0 | 1) => ({
    F: extra(joined, `F${index}`, shared("F", index)),
    I: extra(joined, `I${index}`, shared("I", index) - (index === 0 ? 2 * moved : 0)),
  });
  return {
    activations,
    released: -change(alone, "I0", "activations"),
    derivatives,
    // The first of two takes both slots, the second none.
    slots: {
      activations: (shared("F", 0) - shared("F", 1)) / 2,
      derivatives: (shared("I", 0) - shared("I", 1)) / 2,
      released: -change(joined, "I1", "activations"),
      moved,
      workspace: { first: within(0), later: within(1) },
      weights: Math.max(0, extra(joined, "W0+1", 0) - w),
    },
    whole: change(whole, "F0", "activations"),
    workspace: {
      F: extra(alone, "F0", activations),
      I: extra(alone, "I0", derivatives),
      W: w,
      B: extra(whole, "B0", 0),
    },
  };
}

function during(timeline: Timeline, action: string): Timeline {
  return timeline.filter((point) => point.action === action);
}

/** Bytes of the messages that an action sends. When they have arrived, and their memory is free again, is up to the receiver. */
function sentBy(timeline: Timeline, action: string): number {
  const points = during(timeline, action);
  let [sent, before] = [0, points[0].categories.transfer];
  for (const { categories: { transfer } } of points) {
    sent += Math.max(0, transfer - before);
    before = transfer;
  }
  return sent;
}

/** The most that an action holds beyond what was there before; messages, which come and go in their own time, left out. */
function highestWithin(points: Timeline): number {
  const own = ({ total, categories }: LedgerPoint) => total - categories.transfer;
  return Math.max(...points.map(own)) - own(points[0]);
}

/** As the pool rounds it. */
function padded(bytes: number): number {
  return Math.ceil(bytes / 256) * 256;
}
