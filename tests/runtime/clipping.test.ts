import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { frozen } from "../../lib/layers/frozen.ts";
import { linear } from "../../lib/layers/linear.ts";
import type { Model } from "../../lib/models/model.ts";
import { normOf as gradientNormOf, verdictOf } from "../../lib/runtime/finish.ts";
import { createPipeline, type Pipeline, type Precision } from "../../lib/runtime/pipeline.ts";
import type { StepOptions } from "../../lib/runtime/step.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { aligned, randomBatch, tinyModel } from "./support.ts";

let one: DeviceSet, two: DeviceSet;
before(async () => {
  one = await openDevices(1);
  two = await openDevices(2);
});
after(() => [one, two].forEach((set) => set.close()));

/** The tiny model with its head tied to the embedding. */
function tiedModel(): Model {
  const model = tinyModel(aligned);
  const head = linear("tied_head", aligned.width, aligned.vocabulary, { transposed: true });
  const blocks = model.layers.slice(0, -1);
  return { ...model, layers: [...blocks, head], tied: [[blocks[0].parameters[0], head.parameters[0]]] };
}
/** Half of its parameters frozen. */
function frozenModel(): Model {
  const model = tinyModel(aligned);
  return { ...model, layers: model.layers.map((layer, at) => at % 2 === 0 ? layer : frozen(layer)) };
}
const models: [string, () => Model, string[]][] = [
  ["a model", () => tinyModel(aligned), []],
  ["tied parameters", tiedModel, ["tied_head.weight"]],
  ["frozen parameters", frozenModel, []],
];
const scheduleOf = (set: DeviceSet) => twoStage(generate("1f1b-1", { devices: set.devices.length, microbatches: 2 }));
const batch = randomBatch(aligned, 4);

/** The norm in float64, of gradients by name; copies of tied parameters are left out. */
const normOf = (gradients: ReadonlyMap<string, Float32Array>, copies: readonly string[]) =>
  Math.sqrt(
    [...gradients].filter(([name]) => !copies.includes(name))
      .reduce((sum, [, values]) => sum + values.reduce((own, value) => own + value ** 2, 0), 0),
  );

function differences(actual: ReadonlyMap<string, Float32Array>, expected: ReadonlyMap<string, ArrayLike<number>>) {
  let most = 0;
  for (const [name, values] of expected) {
    actual.get(name)!.forEach((value, i) => most = Math.max(most, Math.abs(value - values[i])));
  }
  return most;
}

for (const [name, model, copies] of models) {
  for (const precision of ["f32", "mixed"] satisfies Precision[]) {
    test(`of ${name} (${precision}) the norm is that of all gradients of all ranks, and what is above is clipped`, async (t) => {
      for (const set of [one, two]) {
        if (precision === "mixed" && !set.devices[0].gpu.info.f16) return t.skip("this device has no f16");
        const optimizer = sgd({ learningRate: 0.5 });
        const pipeline = createPipeline(set, model(), { optimizer, seed: 3, precision });
        const start = await pipeline.parameters(), schedule = scheduleOf(set);
        await pipeline.step(schedule, batch, { optimize: false });
        const gradients = await pipeline.gradients(), norm = normOf(gradients, copies);
        for (const clip of [undefined, 10 * norm, 0.3 * norm]) {
          pipeline.setParameters(start);
          pipeline.clearGradients();
          const result = await pipeline.step(schedule, batch, { ...clip === undefined ? {} : { clip } });
          assert.ok(Math.abs(result.gradientNorm! - norm) < 2e-6 * norm, `${result.gradientNorm} instead of ${norm}`);
          const factor = Math.min(1, (clip ?? Infinity) / (norm + 1e-6));
          if (clip === undefined) assert.equal(result.clipped, undefined);
          else assert.ok(Math.abs(result.clipped! - factor) < 1e-6);
          const expected = new Map([...start].map(([name, values]) => {
            const gradient = gradients.get(name);
            return [name, Float64Array.from(values, (value, i) => value - 0.5 * factor * (gradient?.[i] ?? 0))];
          }));
          const most = differences(await pipeline.parameters(), expected);
          assert.ok(most < 2e-6, `clip ${clip}: off by ${most}`);
        }
        pipeline.close();
      }
    });
  }
}

test("what is clipped is what PyTorch's clip_grad_norm_ leaves", () => {
  const { shapes, clipped }: { shapes: number[][]; clipped: { clip: number; norm: number; first: number }[] } = JSON
    .parse(readFileSync(new URL("../fixtures/optimizers.json", import.meta.url), "utf8"));
  const gradient = (i: number) => Math.sin(0.7 * (i + 1));
  const squares = shapes.map(([rows, columns]) =>
    Array.from({ length: rows * columns }, (_, i) => gradient(i) ** 2).reduce((a, b) => a + b)
  );
  for (const { clip, norm, first } of clipped) {
    assert.ok(Math.abs(gradientNormOf(squares) - norm) < 1e-9);
    const verdict = verdictOf(squares.map((each) => ({ squares: each })), { clip });
    assert.ok(Math.abs(verdict.clipped * gradient(0) - first) < 1e-9);
  }
});

test("a clip that is not reached leaves the bits of a step without one, and one that is gives the same bits again", async () => {
  const run = async (options: StepOptions) => {
    const pipeline = createPipeline(two, tiedModel(), { optimizer: adamw(), seed: 3 });
    const norms = [];
    for (let i = 0; i < 3; i++) {
      norms.push((await pipeline.step(scheduleOf(two), randomBatch(aligned, 4, i), options)).gradientNorm);
    }
    const parameters = await pipeline.parameters();
    pipeline.close();
    return { norms, parameters };
  };
  const plain = await run({});
  assert.deepEqual((await run({ clip: 1e9 })).parameters, plain.parameters);
  const clipped = await run({ clip: 0.01 });
  assert.notDeepEqual(clipped.parameters, plain.parameters);
  assert.deepEqual(await run({ clip: 0.01 }), clipped);
});

test("steps that add up their shares make the step of the whole batch, its norm and its update", async () => {
  const optimizer = adamw({ learningRate: 0.01 });
  const whole = createPipeline(two, tinyModel(aligned), { optimizer, seed: 3 });
  const half = createPipeline(two, tinyModel(aligned), { optimizer, seed: 3 });
  const part = (at: number) => ({
    samples: 4,
    inputs: big.inputs.subarray(at * big.inputs.length / 2, (at + 1) * big.inputs.length / 2),
    targets: big.targets.subarray(at * big.targets.length / 2, (at + 1) * big.targets.length / 2),
  });
  const big = randomBatch(aligned, 8, 5), schedule = scheduleOf(two), clip = 0.05;
  const expected = await whole.step(schedule, big, { clip });
  const first = await half.step(schedule, part(0), { optimize: false, share: 1 / 2 });
  const second = await half.step(schedule, part(1), { accumulate: true, share: 1 / 2, clip });
  assert.ok(Math.abs((first.loss + second.loss) / 2 - expected.loss) < 1e-6 * expected.loss);
  assert.ok(Math.abs(second.gradientNorm! - expected.gradientNorm!) < 1e-5 * expected.gradientNorm!);
  assert.ok(expected.clipped! < 1);
  assert.ok(differences(await half.parameters(), await whole.parameters()) < 1e-4);
  whole.close();
  half.close();
});

test("a rate multiplies the learning rates of all groups, in that step alone, and is told", async () => {
  const groups = [{ match: /embedding/, learningRate: 0.02 }];
  const make = (factor: number) =>
    createPipeline(two, tinyModel(aligned), {
      optimizer: sgd({
        learningRate: 0.5 * factor,
        groups: groups.map((group) => ({ ...group, learningRate: factor * group.learningRate })),
      }),
      seed: 3,
    });
  const schedule = scheduleOf(two);
  const scaled = make(1), plain = make(0.25);
  const told = await scaled.step(schedule, batch, { rate: 0.25 });
  assert.equal(told.learningRate, 0.125);
  assert.equal((await plain.step(schedule, batch)).learningRate, 0.125);
  assert.deepEqual(await scaled.parameters(), await plain.parameters());
  assert.equal((await scaled.step(schedule, batch)).learningRate, 0.5);
  const still = await scaled.parameters();
  await scaled.step(schedule, batch, { rate: 0 });
  assert.deepEqual(await scaled.parameters(), still);
  scaled.close();
  plain.close();
});

test("a rate or a clip without an update, and one out of its range, are refused", async () => {
  const pipeline: Pipeline = createPipeline(two, tinyModel(aligned), { optimizer: sgd({ learningRate: 0.1 }) });
  const refused = async (options: StepOptions, message: RegExp) =>
    await assert.rejects(pipeline.step(scheduleOf(two), batch, options), message);
  await refused({ optimize: false, clip: 1 }, /^UserError: step: `clip` is about the update/);
  await refused({ optimize: false, rate: 1 }, /^UserError: step: `rate` is about the update/);
  for (const clip of [0, -1, NaN, Infinity]) await refused({ clip }, /^UserError: step: clip must be/);
  for (const rate of [-1, NaN]) await refused({ rate }, /^UserError: step: rate must be/);
  await refused({ share: 0 }, /^UserError: step: share must be/);
  pipeline.close();
});
