/** Trainings that are interrupted and go on: the same bits where they are cut alike, the same numbers otherwise. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { llama } from "../../lib/models/llama.ts";
import { bert } from "../../lib/models/bert.ts";
import type { Model } from "../../lib/models/model.ts";
import { frozenModel } from "../../lib/models/frozen_model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { createPipeline, type Pipeline, type PipelineOptions } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { interleavedPlacement } from "../../lib/schedules/generators/placement.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { maskedTextSource, type PositionedSource, textSource } from "../../lib/train/data.ts";
import { muon } from "../../lib/train/muon.ts";
import { adamw, lion, type OptimizerSpec, sgd } from "../../lib/train/optimizers.ts";
import type { SourcePosition } from "../../lib/train/position.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { loadCheckpoint, saveCheckpoint } from "../../lib/training/checkpoint.ts";
import { aligned, deep } from "../runtime/support.ts";

const root = mkdtempSync(join(tmpdir(), "twobp-resume-"));
let one: DeviceSet, two: DeviceSet, four: DeviceSet;
before(async () => {
  [one, two, four] = [await openDevices(1), await openDevices(2), await openDevices(4)];
});
after(() => {
  [one, two, four].forEach((set) => set.close());
  rmSync(root, { recursive: true, force: true });
});

const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const text = new TextEncoder().encode("to be or not to be, that is the question. ".repeat(20));
const ids = { ...aligned, vocabulary: 256 };
const language = () => llama("tiny", { ...ids, dropout: 0.2 });
const textFrom = (from?: SourcePosition) =>
  textSource(text, { length: ids.length, seed: 5, ...(from ? { from } : {}) });

interface Training {
  readonly model: () => Model;
  readonly open: (from?: SourcePosition) => PositionedSource;
  readonly options: Omit<PipelineOptions, "placement">;
}

/** All that a pipeline has, and its losses: compared bit for bit. */
async function ended(pipeline: Pipeline, losses: readonly number[]) {
  const [parameters, state, { updates, values, lossScale }] = await Promise.all([
    pipeline.parameters(),
    pipeline.state(),
    pipeline.optimizerState(),
  ]);
  pipeline.close();
  return { losses, parameters, state, updates, values, lossScale };
}

async function steps(pipeline: Pipeline, by: Schedule, source: PositionedSource, count: number): Promise<number[]> {
  const losses = [];
  for (let i = 0; i < count; i++) {
    losses.push((await pipeline.step(by, await source.next(4), { clip: 1, rate: 1 / (1 + i % 2) })).loss);
  }
  return losses;
}

interface Other {
  readonly set: DeviceSet;
  readonly by: Schedule;
  readonly placement?: readonly number[];
}

/** Six steps at once; and four, a checkpoint, and two of another pipeline that starts from other parameters. */
async function twice({ model, open, options }: Training, other: Other) {
  const whole = createPipeline(two, model(), { ...options, seed: 3 });
  const undisturbed = await ended(whole, await steps(whole, schedule, open(), 6));
  const folder = mkdtempSync(join(root, "run-"));
  const first = createPipeline(two, model(), { ...options, seed: 3 }), source = open();
  const early = await steps(first, schedule, source, 4);
  await saveCheckpoint(first, folder, { step: 4, position: source.position() });
  first.close();
  const { set, by, placement } = other;
  const second = createPipeline(set, model(), { ...options, seed: 4, ...(placement ? { placement } : {}) });
  await steps(second, by, open(), 1); // what it had is overwritten: moments, counts, statistics
  const { step, position } = loadCheckpoint(second, folder);
  assert.equal(step, 4);
  const late = await steps(second, by, open(position), 2);
  return { undisturbed, resumed: await ended(second, [...early, ...late]) };
}

const specs: readonly (readonly [string, OptimizerSpec])[] = [
  ["sgd", sgd({ learningRate: 0.05 })],
  ["sgd with momentum", sgd({ learningRate: 0.05, momentum: 0.9, groups: [{ match: /norm/, learningRate: 0.01 }] })],
  ["adamw", adamw({ learningRate: 0.01, weightDecay: 0.1, groups: [{ match: /norm/, weightDecay: 0.2 }] })],
  ["lion", lion({ learningRate: 1e-3, weightDecay: 0.1 })],
  ["muon", muon({ learningRate: 0.01, others: { match: /embedding|head/, learningRate: 0.01 } })],
];
const trainings: (readonly [string, Training])[] = [
  ...specs.map(([name, optimizer]) =>
    [`${name}, with dropout`, { model: language, open: textFrom, options: { optimizer } }] as const
  ),
  ["mixed precision", {
    model: language,
    open: textFrom,
    options: { optimizer: adamw({ learningRate: 0.01 }), precision: "mixed", lossScale: 2 ** 40 },
  }],
  ["frozen parameters in mixed precision", {
    model: () => frozenModel(language(), (name) => /embedding|blocks\.0\.attention/.test(name)),
    open: textFrom,
    options: { optimizer: adamw({ learningRate: 0.01 }), precision: "mixed" },
  }],
  ["running statistics", {
    model: () => resnet("r", { block: "basic", blocks: [1, 1], width: 4, stem: "3x3", size: 8, classes: 3 }),
    open: (from) => syntheticImages({ size: 8, classes: 3, seed: 2, ...(from ? { from } : {}) }),
    options: { optimizer: sgd({ learningRate: 0.05, momentum: 0.9 }) },
  }],
  ["tied parameters and dropout that counts its batches", {
    model: () =>
      bert("b", {
        ...{ vocabulary: 257, mask: 256, width: 12, blocks: 2, heads: 2, hidden: 10, positions: 16, types: 2 },
        ...{ length: 16, dropout: 0.1 },
      }),
    open: (from) => maskedTextSource(text, { length: 16, seed: 5, mask: 256, ...(from ? { from } : {}) }),
    options: { optimizer: adamw({ learningRate: 0.01 }) },
  }],
];

/** Fails where a number is further off than `tolerance` of the largest of its array. */
function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length, what);
  const most = Math.max(...Array.from(expected, Math.abs));
  for (let i = 0; i < expected.length; i++) {
    const off = Math.abs(actual[i] - expected[i]);
    assert.ok(off <= tolerance * most, `${what}[${i}]: ${actual[i]}, ${expected[i]}`);
  }
}

const others: readonly (readonly [string, () => Other])[] = [
  ["without 2BP", () => ({ set: two, by: generate("1f1b-1", { devices: 2 }) })],
  ["on one device", () => ({ set: one, by: generate("gpipe", { devices: 1, microbatches: 2 }) })],
  ["on four devices", () => ({ set: four, by: twoStage(generate("1f1b-1", { devices: 4 })) })],
  ["in four stages on two devices", () => ({
    ...{ set: two, by: generate("interleaved-1f1b", { devices: 2, microbatches: 2 }) },
    placement: interleavedPlacement(2, 2),
  })],
  ["by zb-v", () => {
    const by = generate("zb-v", { devices: 2, microbatches: 4 });
    return { set: two, by, placement: by.placement };
  }],
];
for (const [name, other] of others) {
  // Plain: where a moment is near 0, what AdamW makes of it turns with its sign.
  for (const optimizer of [sgd({ learningRate: 0.05, momentum: 0.9 }), adamw({ learningRate: 1e-3, epsilon: 1e-3 })]) {
    test(`a training goes on ${name} as it would have, but for rounding: ${optimizer.name}`, async () => {
      const model = () => llama("tiny", { ...deep, vocabulary: 256, dropout: 0.2 });
      const { undisturbed, resumed } = await twice({ model, open: textFrom, options: { optimizer } }, other());
      assertClose(resumed.losses, undisturbed.losses, 1e-5, "loss");
      assert.equal(resumed.updates, 6);
      for (const what of ["parameters", "values"] as const) {
        assert.deepEqual([...resumed[what].keys()].toSorted(), [...undisturbed[what].keys()].toSorted());
        for (const [each, values] of undisturbed[what]) assertClose(resumed[what].get(each)!, values, 1e-5, each);
      }
    });
  }
}

for (const [name, training] of trainings) {
  test(`a training that is resumed has the bits of one that never stopped: ${name}`, async () => {
    const { undisturbed, resumed } = await twice(training, { set: two, by: schedule });
    assert.deepEqual(resumed, undisturbed);
  });
}
