/** What a pipeline computes on a set of devices, in one process or in several: its results, and hashes of its values. */
import { createHash } from "node:crypto";
import type { DeviceSet } from "../../lib/gpu/devices.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { createPipeline, type PipelineOptions } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import type { Batch } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { loadCheckpoint, saveCheckpoint } from "../../lib/training/checkpoint.ts";
import { deep, randomBatch, tinyModel } from "../runtime/support.ts";

type Case = readonly [
  ...[model: Model, schedules: readonly Schedule[], batchOf: (seed: number) => Batch],
  options?: Pick<PipelineOptions, "replicas" | "shardOptimizer">,
];

const images = () => resnet("r", { block: "basic", blocks: [1, 1], width: 4, stem: "3x3", size: 8, classes: 3 });
const pictures = (seed: number) => syntheticImages({ size: 8, classes: 3, seed }).next(4);

const cases = (): readonly Case[] => [
  [
    tinyModel(deep),
    [
      generate("zb-v", { devices: 2, microbatches: 4 }),
      twoStage(generate("interleaved-1f1b", { devices: 2, microbatches: 4 })),
    ],
    (seed) => randomBatch(deep, 8, seed),
  ],
  [
    images(),
    [generate("1f1b-1", { devices: 2 }), twoStage(generate("1f1b-2", { devices: 2 }))],
    pictures,
  ],
  // A replica in each process.
  [images(), [twoStage(generate("gpipe", { devices: 1, microbatches: 2 }))], pictures, { replicas: 2 }],
  [tinyModel(deep), [generate("naive", { devices: 1 })], (seed) => randomBatch(deep, 8, seed), {
    ...{ replicas: 2, shardOptimizer: true },
  }],
];

/** A layer that fails in its next forward, when it is told to; of several replicas the second's. */
function fragile(layer: Layer, isBroken: () => boolean): Layer {
  return {
    ...layer,
    forward(y, x, saved) {
      if (isBroken() && !y.device.place.endsWith("replica 0")) throw new Error("the layer is broken");
      layer.forward(y, x, saved);
    },
  };
}

const hashOf = (values: ReadonlyMap<string, Float32Array>) => {
  const hash = createHash("sha256");
  for (const [name, array] of values) {
    hash.update(name).update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  }
  return hash.digest("hex").slice(0, 16);
};

/**
 * Trains, fails, trains on, and saves and sets what there is, for two models and two schedules each, and in two replicas; the last
 * stage is the one that fails, on one rank alone.
 */
export async function workload(set: DeviceSet): Promise<unknown[]> {
  const results: unknown[] = [];
  for (const [model, schedules, batchOf, copies] of cases()) {
    for (const schedule of schedules) {
      let isBroken = false;
      const parts = partition(model, schedule.placement.length), last = parts[parts.length - 1];
      last[0] = fragile(last[0], () => isBroken);
      const options = {
        optimizer: adamw({ learningRate: 0.01 }),
        placement: schedule.placement,
        parts,
        seed: 3,
        ...copies,
      };
      const pipeline = createPipeline(set, model, options);
      const { loss, gradientNorm, peaks } = await pipeline.step(schedule, batchOf(1), { clip: 1 });
      isBroken = true;
      const failure = await pipeline.step(schedule, batchOf(2)).then(() => "it did not fail", String);
      isBroken = false;
      const saved = { parameters: await pipeline.parameters(), optimizer: await pipeline.optimizerState() };
      const after = await pipeline.step(schedule, batchOf(3));
      await pipeline.step(schedule, batchOf(4), { optimize: false });
      const gradients = await pipeline.gradients(), state = await pipeline.state();
      pipeline.setParameters(saved.parameters);
      pipeline.setOptimizerState(saved.optimizer);
      const again = await pipeline.step(schedule, batchOf(3));
      const { loss: held, outputs } = await pipeline.evaluate(schedule, batchOf(5), { outputs: true });
      const made = model.takes.vocabulary ? await pipeline.generate([1, 2, 3], { tokens: 4 }) : undefined;
      results.push({
        case: `${model.name}, ${schedule.name}`,
        ...{ loss, gradientNorm, failure, after: after.loss, again: again.loss, held },
        ranks: peaks.length,
        updates: saved.optimizer.updates,
        names: [gradients, state, saved.optimizer.values].map((values) => [...values.keys()].join()),
        hashes: [gradients, state, saved.parameters, saved.optimizer.values, await pipeline.parameters()].map(hashOf),
        outputs: hashOf(new Map([["outputs", outputs!]])),
        tokens: made && Array.from(made.tokens),
      });
      pipeline.close();
    }
  }
  return JSON.parse(JSON.stringify(results));
}

/** The schedule of a step whose times are looked at: messages of one rank wait for those of the other all the time. */
export const tracedSchedule = () => generate("1f1b-2", { devices: 2 });

/** The times of a step, and the clocks before and after it. */
export async function tracedStep<Reading>(set: DeviceSet, read: () => Promise<Reading>) {
  const pipeline = createPipeline(set, tinyModel(deep), { optimizer: adamw(), seed: 3 });
  await pipeline.step(tracedSchedule(), randomBatch(deep, 8, 1)); // compiles
  const before = await read();
  const { intervals } = await pipeline.step(tracedSchedule(), randomBatch(deep, 8, 1));
  const after = await read();
  pipeline.close();
  return { before, intervals: intervals!, after };
}

/** A pipeline of so many ranks and replicas, on as many devices, whose micro-batches are the same whatever these are. */
export interface Shape {
  readonly ranks: number;
  readonly replicas: number;
  readonly shardOptimizer?: boolean;
}

function pipelineOf(set: DeviceSet, { ranks, ...copies }: Shape, seed: number) {
  const schedule = generate("gpipe", { devices: ranks, microbatches: 4 / copies.replicas });
  const pipeline = createPipeline(set, tinyModel(deep), { optimizer: adamw({ learningRate: 0.01 }), seed, ...copies });
  /** Three updates from number `from` on, and what they end with. */
  const train = async (from: number) => {
    const losses: number[] = [];
    for (let step = from; step < from + 3; step++) {
      losses.push((await pipeline.step(schedule, randomBatch(deep, 8, step), { clip: 1 })).loss);
    }
    const parameters = await pipeline.parameters();
    return { losses, parameters: [...parameters].map(([name, values]) => [name, Array.from(values)] as const) };
  };
  return { pipeline, train };
}

/** Three updates, a checkpoint, and how it goes on. */
export async function trainAndSave(set: DeviceSet, shape: Shape, folder: string) {
  const { pipeline, train } = pipelineOf(set, shape, 3);
  await train(1);
  await saveCheckpoint(pipeline, folder, { step: 3 });
  const after = await train(4);
  pipeline.close();
  return after;
}

/** How a pipeline goes on that is given the checkpoint, and the number of updates that this says. */
export async function loadAndTrain(set: DeviceSet, shape: Shape, folder: string) {
  const { pipeline, train } = pipelineOf(set, shape, 99);
  const { step } = loadCheckpoint(pipeline, folder);
  const after = await train(step + 1);
  pipeline.close();
  return after;
}

/** Pipelines of two processes whose checkpoints are read elsewhere. */
export const written: readonly (readonly [name: string, shape: Shape])[] = [
  ["two ranks", { ranks: 2, replicas: 1 }],
  ["two replicas, the optimizer shared out among them", { ranks: 1, replicas: 2, shardOptimizer: true }],
];
