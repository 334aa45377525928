/** Models of one's own through a pipeline: a regression with f32 targets, a loss and layers of one's own, side inputs on any stage. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { linear } from "../../lib/layers/linear.ts";
import { parameter } from "../../lib/layers/parameter.ts";
import type { Loss } from "../../lib/losses/loss.ts";
import { meanSquaredError } from "../../lib/losses/mean_squared_error.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { defineModel, type ModelDefinition } from "../../lib/models/define_model.ts";
import { add, scale } from "../../lib/ops/elementwise.ts";
import { matmul } from "../../lib/ops/matmul.ts";
import { generator } from "../../lib/random.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { joinAdjacent } from "../../lib/tensor.ts";
import type { Batch } from "../../lib/train/data.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { huberLoss } from "../losses/huber.ts";
import { assertDifferences } from "../models/support.ts";
import { gelu as gelus } from "../reference/gelu.ts";
import { affine, huber } from "../reference/mlp.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const features = 5, hidden = 16, results = 3, extras = 4, samples = 8;

/** y = x + side W: a second input, which joins on whatever stage this is. */
function joined(name: string, side: string, width: number): Layer {
  const weight = parameter(`${name}.weight`, [extras, width], { normal: 0.5 });
  return {
    parameters: [weight],
    reads: { gradient: true, sides: [side] },
    outputShape: (shape) => shape,
    flops: ([rows]) => ({ f: 2 * rows * extras * width, i: 0, w: 2 * rows * extras * width }),
    forward(y, x, saved) {
      const own = saved.scratch(y.shape, y.dtype);
      matmul(own, saved.side(side), saved.value(weight));
      add(y, x, own);
    },
    backwardInput(dx, dy, saved) {
      saved.keep("dy", dy);
      if (dx) scale(dx, dy, 1);
    },
    backwardWeight(saved) {
      const gradient = saved[0].gradient(weight);
      for (const [x, dy] of joinAdjacent(saved.map((each) => [each.side(side), each.get("dy")] as const))) {
        matmul(gradient, x, dy, { transposeA: true, accumulate: true });
      }
    },
  };
}

/** A perceptron of seven layers, the third of which takes the side input "extra". */
function perceptron(loss: Loss, more: Partial<ModelDefinition> = {}) {
  const start = { initial: { normal: 0.4 }, bias: { normal: 0.1 } } as const;
  return defineModel({
    name: "perceptron",
    inputs: { shape: [features] },
    layers: [
      linear("a", features, hidden, start),
      gelu(),
      joined("b", "extra", hidden),
      linear("c", hidden, hidden, start),
      gelu(),
      linear("d", hidden, results, start),
    ],
    loss,
    sides: { extra: { type: "f32", shape: [extras] } },
    ...more,
  });
}

const random = generator("own model");
const normals = (count: number) => Float32Array.from({ length: count }, () => random.normal());
const shift = normals(samples * results);
const batch: Batch = {
  samples,
  inputs: normals(samples * features),
  targets: normals(samples * results),
  sides: { extra: normals(samples * extras) },
};

type Values = ReadonlyMap<string, ArrayLike<number>>;

function outputsOf(values: Values): Float64Array {
  const of = (name: string) => values.get(name)!;
  const layer = (x: ArrayLike<number>, name: string) => affine(x, of(`${name}.weight`), of(`${name}.bias`));
  const side = affine(batch.sides!.extra, of("b.weight"), new Float64Array(hidden));
  const b = Float64Array.from(gelus(layer(batch.inputs, "a"), "erf"), (value, i) => value + side[i]);
  return layer(gelus(layer(b, "c"), "erf"), "d");
}

const losses: Record<string, { loss: Loss; sides: Batch["sides"]; of: (output: number, at: number) => number }> = {
  "mean squared error": {
    loss: meanSquaredError(),
    sides: {},
    of: (output, at) => (output - batch.targets[at]) ** 2,
  },
  "a loss of one's own, with a side input": {
    loss: huberLoss(0.5, "shift"),
    sides: { shift },
    of: (output, at) => huber(output - batch.targets[at] - shift[at], 0.5),
  },
};

for (const [name, { loss, sides, of }] of Object.entries(losses)) {
  const model = perceptron(loss, {
    sides: {
      extra: { type: "f32", shape: [extras] },
      ...loss.sides ? { shift: { type: "f32", shape: [results] } } : {},
    },
  });
  const brought = { ...batch, sides: { ...batch.sides, ...sides } };
  const lossOf = (values: Values) => {
    const outputs = outputsOf(values);
    return outputs.reduce((sum, output, at) => sum + of(output, at), 0) / outputs.length;
  };

  test(`a regression with ${name} has the float64 loss and gradients in every schedule, split or not`, async () => {
    for (const schedule of ["naive", "gpipe", "1f1b-1", "1f1b-2", "zb-v", "interleaved-1f1b"]) {
      const base = generate(schedule, { devices: 2, microbatches: 4 });
      const pipeline = createPipeline(set, model, {
        optimizer: sgd({ learningRate: 0.1 }),
        placement: base.placement,
        seed: 2,
      });
      const values = new Map(
        [...await pipeline.parameters()].map(([name, values]) => [name, Float64Array.from(values)]),
      );
      const before = set.devices.map(({ ledger }) => ledger.total());
      for (const each of schedule === "zb-v" ? [base] : [base, twoStage(base), twoStage(base, { width: 2 })]) {
        const result = await pipeline.step(each, brought, { optimize: false });
        const expected = lossOf(values);
        assert.ok(Math.abs(result.loss - expected) < 1e-5 * expected, `${schedule}: ${result.loss}, not ${expected}`);
        assertDifferences(() => lossOf(values), values, await pipeline.gradients());
        assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), before);
      }
      pipeline.close();
    }
  });

  test(`a regression with ${name} in mixed precision is near f32's, and predicted to the byte`, async (t) => {
    if (!set.devices.every(({ gpu }) => gpu.info.f16)) return t.skip("this device has no f16");
    const schedule = twoStage(generate("1f1b-1", { devices: 2, microbatches: 4 }), { width: 2 });
    const optimizer = sgd({ learningRate: 0.1 });
    const pipeline = createPipeline(set, model, { optimizer, precision: "mixed", seed: 2 });
    const values = await pipeline.parameters();
    const result = await pipeline.step(schedule, brought, { optimize: false });
    const expected = lossOf(values);
    assert.ok(Math.abs(result.loss - expected) < 2e-3 * expected, `${result.loss}, not ${expected}`);
    assert.equal(result.skipped, false);
    pipeline.close();
    const { software, subgroupSize } = set.devices[0].gpu.info;
    const predicted = await predictMemory(model, schedule, 2, {
      optimizer,
      software,
      subgroupSize,
      precision: "mixed",
    });
    for (const [rank, { categories }] of result.peaks.entries()) {
      const { activations, derivatives, gradients, parameters } = categories;
      const p = predicted[rank].categories;
      assert.deepEqual([activations, derivatives, gradients, parameters], [
        ...[p.activations, p.derivatives],
        ...[p.gradients, p.parameters],
      ]);
    }
  });
}

test("a regression learns", async () => {
  const pipeline = createPipeline(set, perceptron(meanSquaredError()), { optimizer: adamw({ learningRate: 0.02 }) });
  const schedule = twoStage(generate("1f1b-2", { devices: 2 }));
  const course: number[] = [];
  for (let step = 0; step < 60; step++) course.push((await pipeline.step(schedule, batch)).loss);
  pipeline.close();
  assert.ok(course[59] < 0.2 * course[0], `${course[0]} became ${course[59]}`);
});
