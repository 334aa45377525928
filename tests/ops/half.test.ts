/**
 * The f16 forms of the row-wise operations, against the float64 references on inputs that f16 can hold. Results in f16
 * are rounded to 11 bits (5e-4 of themselves); statistics, losses and parameter gradients are f32 and as exact as ever.
 */
import assert from "node:assert/strict";
import { after, test, type TestContext } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { addBias, columnSum } from "../../lib/ops/bias.ts";
import { dropout } from "../../lib/ops/dropout.ts";
import { scale } from "../../lib/ops/elementwise.ts";
import { embedding, embeddingBackwardWeight, packIds } from "../../lib/ops/embedding.ts";
import { gelu, geluBackward } from "../../lib/ops/gelu.ts";
import { layerNorm, layerNormBackwardInput, layerNormSums } from "../../lib/ops/layer_norm.ts";
import { crossEntropy, crossEntropyBackward } from "../../lib/ops/loss.ts";
import { rmsNorm, rmsNormBackwardInput, rmsNormSums } from "../../lib/ops/norm.ts";
import { averagePool, averagePoolBackward, maxPool, maxPoolBackward } from "../../lib/ops/pool.ts";
import { relu, reluBackward } from "../../lib/ops/relu.ts";
import { rope } from "../../lib/ops/rope.ts";
import { squaredError, squaredErrorBackward } from "../../lib/ops/squared_error.ts";
import { swiglu, swigluBackward } from "../../lib/ops/swiglu.ts";
import { empty, type Tensor, toArray } from "../../lib/tensor.ts";
import * as biases from "../reference/bias.ts";
import * as drops from "../reference/dropout.ts";
import * as embeddings from "../reference/embedding.ts";
import * as gelus from "../reference/gelu.ts";
import * as layerNorms from "../reference/layer_norm.ts";
import * as losses from "../reference/loss.ts";
import * as norms from "../reference/norm.ts";
import * as pools from "../reference/pool.ts";
import * as ropes from "../reference/rope.ts";
import * as swiglus from "../reference/swiglu.ts";
import { assertTensor, close, device, dirty, normal, rowVariants, tensor, tokens, withCandidate } from "./support.ts";

after(close);

const tolerance = 1e-3;

/** Normal numbers that f16 can hold. */
const halves = (count: number, seed: number) => fromHalf(toHalf(normal(count, seed)));
const f16 = (on: Device, shape: readonly number[], data: Float32Array) => tensor(on, shape, data, "f16");
const out16 = (on: Device, shape: readonly number[]) => dirty(on, shape, "f16");

/** A test that is skipped where the device has no f16. */
function testHalf(name: string, body: (on: Device) => Promise<void> | void): void {
  test(name, async (t: TestContext) => {
    const on = await device();
    if (on.gpu.info.f16) await body(on);
    else t.skip("this device has no f16");
  });
}

for (const [rows, width] of [[7, 20], [37, 13], [33, 260]]) {
  const count = rows * width, shape = [rows, width];
  const x = halves(count, 1), dy = halves(count, 2), gain = halves(width, 3), bias = halves(width, 4);
  const before = normal(width, 5);

  for (const variant of rowVariants(width)) {
    const of = `of ${rows} x ${width} (${variant})`;
    const record = (run: () => void) => withCandidate(variant, run);

    testHalf(`rmsNorm() ${of} and its gradients in f16 equal the float64 reference`, async (on) => {
      const { y, rstd } = norms.rmsNorm(x, gain), { dx, dgain } = norms.rmsNormBackward(dy, x, rstd, gain);
      const residual = halves(count, 6);
      const out = out16(on, shape), outRstd = dirty(on, [rows]), outDx = out16(on, shape);
      const outGain = dirty(on, [width]);
      const [xt, dyt, gaint] = [f16(on, shape, x), f16(on, shape, dy), f16(on, [width], gain)];
      record(() => {
        rmsNorm(out, outRstd, xt, gaint);
        rmsNormBackwardInput(outDx, dyt, xt, outRstd, gaint, f16(on, shape, residual));
        rmsNormSums(outGain, dyt, xt, outRstd);
      });
      await assertTensor(out, y, tolerance, "y");
      await assertTensor(outRstd, rstd, 2e-6, "rstd");
      await assertTensor(outDx, dx.map((value, i) => value + residual[i]), tolerance, "dx");
      await assertTensor(outGain, dgain, 4e-6, "dgain");
    });

    testHalf(`layerNorm() ${of} and its gradients in f16 equal the float64 reference`, async (on) => {
      const { y, statistics } = layerNorms.layerNorm(x, gain, bias, 1e-5);
      const { dx, dgain, dbias } = layerNorms.layerNormBackward(dy, x, statistics, gain);
      const out = out16(on, shape), outStatistics = dirty(on, [rows, 2]), outDx = out16(on, shape);
      const outGain = dirty(on, [width]), outBias = dirty(on, [width]);
      const [xt, dyt, gaint] = [f16(on, shape, x), f16(on, shape, dy), f16(on, [width], gain)];
      record(() => {
        layerNorm(out, outStatistics, xt, gaint, f16(on, [width], bias), 1e-5);
        layerNormBackwardInput(outDx, dyt, xt, outStatistics, gaint);
        layerNormSums(outGain, outBias, dyt, xt, outStatistics);
      });
      await assertTensor(out, y, tolerance, "y");
      await assertTensor(outStatistics, statistics, 2e-6, "statistics");
      await assertTensor(outDx, dx, tolerance, "dx");
      await assertTensor(outGain, dgain, 4e-6, "dgain");
      await assertTensor(outBias, dbias, 4e-6, "dbias");
    });

    testHalf(`crossEntropy() ${of} and its gradient in f16 equal the float64 reference`, async (on) => {
      const targets = tokens(rows, width, 7);
      const expected = losses.crossEntropy(x, targets, width);
      const scale = 65_536 / rows; // a loss scale: without it most of these gradients would be subnormal in f16
      const out = dirty(on, [rows]), sums = dirty(on, [rows]), outDx = out16(on, shape);
      const [xt, wanted] = [f16(on, shape, x), tensor(on, [rows], targets)];
      const scales = tensor(on, [1], Float32Array.of(scale));
      record(() => {
        crossEntropy(out, sums, xt, wanted);
        crossEntropyBackward(outDx, xt, sums, wanted, scales);
      });
      await assertTensor(out, expected.losses, 4e-6, "losses");
      await assertTensor(sums, expected.logSumExp, 2e-6, "logSumExp");
      await assertTensor(outDx, losses.crossEntropyBackward(x, targets, width, scale), tolerance, "dlogits");
    });

    testHalf(`squaredError() ${of} and its gradient in f16 equal the float64 reference`, async (on) => {
      const targets = normal(count, 8), scale = 512;
      const out = dirty(on, [rows]), outDy = out16(on, shape);
      const [y, wanted] = [f16(on, shape, x), tensor(on, shape, targets)];
      record(() => {
        squaredError(out, y, wanted);
        squaredErrorBackward(outDy, y, wanted, tensor(on, [1], Float32Array.of(scale)));
      });
      await assertTensor(out, losses.squaredError(x, targets, width), 2e-6, "losses");
      await assertTensor(outDy, losses.squaredErrorBackward(x, targets, scale), tolerance, "dy");
    });

    testHalf(`addBias(), its gradient and dropout() ${of} in f16 equal the float64 reference`, async (on) => {
      const y = f16(on, shape, x), outBias = tensor(on, [width], before), dropped = out16(on, shape);
      const mask = { rate: 0.3, seed: tensor(on, [2], Uint32Array.of(9, 1)), salt: 99 };
      record(() => {
        addBias(y, f16(on, [width], bias));
        columnSum(outBias, f16(on, shape, dy));
        dropout(dropped, f16(on, shape, x), mask, 5);
      });
      await assertTensor(y, biases.addBias(x, bias), tolerance, "y");
      const sums = biases.columnSum(dy, width);
      await assertTensor(outBias, sums.map((value, i) => value + before[i]), 4e-6, "dbias");
      const expected = drops.dropout(x, width, { rate: 0.3, seed: 9, salt: 99, firstRow: 5 });
      await assertTensor(dropped, expected, tolerance, "dropout");
    });

    testHalf(`embedding() ${of} copies f16 exactly; its gradient is f32`, async (on) => {
      const vocabulary = 5, ids = tokens(rows, vocabulary, 8);
      const table = halves(vocabulary * width, 9), start = normal(vocabulary * width, 10);
      const out = out16(on, shape), dTable = tensor(on, [vocabulary, width], start);
      const idst = tensor(on, [2, rows], packIds(ids));
      record(() => {
        embedding(out, idst, f16(on, [vocabulary, width], table));
        embeddingBackwardWeight(dTable, f16(on, shape, dy), idst);
      });
      await assertTensor(out, embeddings.embedding(ids, table, width), 0, "y");
      const expected = embeddings.embeddingBackward(dy, ids, vocabulary, width);
      await assertTensor(dTable, expected.map((value, i) => value + start[i]), 4e-6, "dTable");
    });

    testHalf(`swiglu() ${of} and its gradient in f16 equal the float64 reference`, async (on) => {
      const gateUp = halves(2 * count, 11);
      const out = out16(on, shape), dGateUp = out16(on, [rows, 2 * width]);
      const gateUpt = f16(on, [rows, 2 * width], gateUp);
      record(() => {
        swiglu(out, gateUpt);
        swigluBackward(dGateUp, f16(on, shape, dy), gateUpt);
      });
      await assertTensor(out, swiglus.swiglu(gateUp, width), tolerance, "y");
      await assertTensor(dGateUp, swiglus.swigluBackward(dy, gateUp, width), tolerance, "dGateUp");
    });
  }

  testHalf(`gelu(), relu() and their gradients of ${count} elements in f16 equal the float64 reference`, async (on) => {
    const run = (body: (out: Tensor, dx: Tensor, x: Tensor, dy: Tensor) => void) => {
      const out = out16(on, shape), dx = out16(on, shape);
      body(out, dx, f16(on, shape, x), f16(on, shape, dy));
      return { out, dx };
    };
    for (const form of ["erf", "tanh"] as const) {
      const { out, dx } = run((out, dx, x, dy) => (gelu(out, x, form), geluBackward(dx, dy, x, form)));
      await assertTensor(out, gelus.gelu(x, form), tolerance, form);
      await assertTensor(dx, gelus.geluBackward(dy, x, form), tolerance, `${form} gradient`);
    }
    const { out, dx } = run((out, dx, x, dy) => (relu(out, x), reluBackward(dx, dy, x)));
    await assertTensor(out, x.map((value) => Math.max(value, 0)), 0, "relu");
    await assertTensor(dx, dy.map((value, i) => x[i] > 0 ? value : 0), 0, "relu gradient");
  });
}

for (const shape of [[2, 7, 6, 8], [1, 5, 9, 3]]) {
  testHalf(`maxPool() and averagePool() of [${shape}] and their gradients in f16 equal the reference`, async (on) => {
    const window = { size: 3, stride: 2, padding: 1 };
    const [samples, height, width, channels] = shape, count = samples * height * width * channels;
    const x = halves(count, 1), { y, from, shape: outShape } = pools.maxPool(x, shape, window);
    const dy = halves(y.length, 2), dmeans = halves(samples * channels, 3);
    for (const variant of rowVariants(channels)) {
      const out = out16(on, outShape), taps = empty(on, outShape, "activations", "u32"), dx = out16(on, shape);
      const means = out16(on, [samples, channels]), dxMean = out16(on, shape);
      const xt = f16(on, shape, x);
      withCandidate(variant, () => {
        maxPool(out, taps, xt, window);
        maxPoolBackward(dx, f16(on, outShape, dy), taps, window);
        averagePool(means, xt);
        averagePoolBackward(dxMean, f16(on, [samples, channels], dmeans));
      });
      await assertTensor(out, y, 0, "largest");
      await assertTensor(dx, pools.maxPoolBackward(dy, from, count), tolerance, "its gradient");
      await assertTensor(means, pools.averagePool(x, shape), tolerance, "mean");
      await assertTensor(dxMean, pools.averagePoolBackward(dmeans, shape), tolerance, "its gradient");
    }
  });
}

for (
  const shape of [{ length: 11, heads: 6, headSize: 8, rowStride: 72 }, {
    length: 5,
    heads: 4,
    headSize: 6,
    rowStride: 37,
  }]
) {
  testHalf(`rope() of heads of ${shape.headSize} in f16 equals the float64 reference`, async (on) => {
    const x = halves(3 * shape.length * shape.rowStride, 1);
    const out = f16(on, [3 * shape.length, shape.rowStride], x);
    rope(out, shape);
    await assertTensor(out, ropes.rope(x, shape), tolerance);
  });
}

testHalf("f32 becomes the nearest f16, and what is too large infinite; f16 becomes f32 exactly", async (on) => {
  // Subnormals, ties, both sides of the largest number and of the smallest.
  const numbers = Float32Array.of(
    0,
    1,
    -2.5,
    2 ** -24,
    3 * 2 ** -25,
    2 ** -14,
    65_504,
    65_519,
    65_520,
    -1e9,
    1 + 2 ** -11,
  );
  const many = Float32Array.of(...numbers, ...normal(101, 1).map((value) => value * 1e-5), ...normal(100, 2));
  const down = out16(on, [many.length]), up = dirty(on, [many.length]);
  scale(down, tensor(on, [many.length], many), 1);
  scale(up, down, 1);
  const expected = fromHalf(toHalf(many));
  const largest = (values: Float32Array) => values.filter((value) => Number.isFinite(value));
  const [halved, back] = [await toArray(down), await toArray(up)];
  assert.deepEqual(back, halved);
  assert.deepEqual(largest(halved), largest(expected));
  assert.deepEqual([...halved].map(Number.isFinite), [...expected].map(Number.isFinite));
});

testHalf("an operation without an f16 form of its result says which tensor needs f32", (on) => {
  assert.throws(
    () => rmsNorm(out16(on, [2, 4]), out16(on, [2]), out16(on, [2, 4]), out16(on, [4])),
    /rmsNorm: rstd is f16 \[2\] where f32 \[2\] is needed/,
  );
});
