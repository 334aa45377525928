import assert from "node:assert/strict";
import { after, test } from "node:test";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { batchNorm, batchNormBackwardInput, batchNormRunning, batchNormSums } from "../../lib/ops/batch_norm.ts";
import { toArray } from "../../lib/tensor.ts";
import * as reference from "../reference/batch_norm.ts";
import {
  assertGradient,
  assertTensor,
  close,
  device,
  dirty,
  normal,
  rowVariants,
  tensor,
  weigh,
  withCandidate,
} from "./support.ts";

after(close);

for (const [rows, width] of [[7, 20], [4, 3], [130, 37], [1000, 5], [5003, 12]]) {
  for (const variant of rowVariants(width)) {
    const of = `of ${rows} x ${width} (${variant})`;
    // Means away from 0, where a variance from the sum of squares would cancel.
    const x = normal(rows * width, 1).map((value, i) => value + 30 * Math.sin(i % width));
    const gain = normal(width, 2), bias = normal(width, 4), dy = normal(rows * width, 3);
    const before = { mean: normal(width, 5), variance: normal(width, 6).map(Math.abs) };
    const batch = reference.batchNorm(x, gain, bias);
    const { dx, dgain, dbias } = reference.batchNormBackward(dy, x, gain);
    const shape = [rows, width];

    test(`batchNorm() ${of} equals the float64 reference, running statistics too`, async () => {
      const on = await device();
      const out = dirty(on, shape), mean = dirty(on, [width]), rstd = dirty(on, [width]);
      const running = { mean: tensor(on, [width], before.mean), variance: tensor(on, [width], before.variance) };
      const [xt, gt, bt] = [tensor(on, shape, x), tensor(on, [width], gain), tensor(on, [width], bias)];
      withCandidate(variant, () => batchNorm(out, { mean, rstd }, running, xt, gt, bt));
      await assertTensor(out, batch.y, 6e-6, "y");
      await assertTensor(mean, batch.mean, undefined, "mean");
      await assertTensor(rstd, batch.rstd, 4e-6, "rstd");
      const expected = reference.updateRunning(before, batch, rows);
      await assertTensor(running.mean, expected.mean, undefined, "running mean");
      await assertTensor(running.variance, expected.variance, undefined, "running variance");
    });

    test(`batchNormRunning() ${of} normalises by what it is given, and leaves that as it is`, async () => {
      const on = await device();
      const running = { mean: tensor(on, [width], before.mean), variance: tensor(on, [width], before.variance) };
      const [xt, gt, bt] = [tensor(on, shape, x), tensor(on, [width], gain), tensor(on, [width], bias)];
      for (const relu of [false, true]) {
        const out = dirty(on, shape);
        withCandidate(variant, () => batchNormRunning(out, running, xt, gt, bt, { relu, epsilon: 1e-3 }));
        const y = Float64Array.from(x, (value, i) => {
          const c = i % width;
          const made = gain[c] * (value - before.mean[c]) / Math.sqrt(before.variance[c] + 1e-3) + bias[c];
          return relu ? Math.max(made, 0) : made;
        });
        await assertTensor(out, y, 6e-6, "y");
      }
      assert.deepEqual(await toArray(running.mean), before.mean);
      assert.deepEqual(await toArray(running.variance), before.variance);
    });

    test(`batchNormSums() and batchNormBackwardInput() ${of} equal the float64 reference`, async () => {
      const on = await device();
      const outGain = dirty(on, [width]), outBias = dirty(on, [width]), out = dirty(on, shape);
      const [dyt, xt, gt, bt] = [
        tensor(on, shape, dy),
        tensor(on, shape, x),
        tensor(on, [width], gain),
        tensor(on, [width], bias),
      ];
      const statistics = {
        mean: tensor(on, [width], Float32Array.from(batch.mean)),
        rstd: tensor(on, [width], Float32Array.from(batch.rstd)),
      };
      withCandidate(variant, () => {
        batchNormSums(outGain, outBias, dyt, xt, statistics, gt, bt);
        batchNormBackwardInput(out, dyt, xt, statistics, gt, bt, outGain, outBias);
      });
      await assertTensor(out, dx, 6e-6, "dx");
      await assertTensor(outGain, dgain, 6e-6, "dgain");
      await assertTensor(outBias, dbias, 6e-6, "dbias");
    });
  }
}

for (const [rows, width] of [[130, 37], [1000, 5], [503, 12]]) {
  for (const variant of rowVariants(width)) {
    for (const dtype of ["f32", "f16"] as const) {
      test(`batchNorm() with ReLU of ${rows} x ${width} (${variant}, ${dtype}) and its gradients equal the float64 reference`, async (t) => {
        const on = await device();
        if (dtype === "f16" && !on.gpu.info.f16) return t.skip("this device has no f16");
        const shape = [rows, width], tolerance = dtype === "f16" ? 6e-4 : 6e-6;
        const rounded = (count: number, seed: number) => fromHalf(toHalf(normal(count, seed)));
        const x = rounded(rows * width, 1), dy = rounded(rows * width, 3);
        const gain = rounded(width, 2), bias = rounded(width, 4);
        const { y, mean, rstd } = reference.batchNorm(x, gain, bias);
        // On the edge of the ReLU float32 may see the other side of it.
        const through = dy.map((value, i) => Math.abs(y[i]) < 1e-4 ? 0 : value);
        const { dx, dgain, dbias } = reference.batchNormBackward(
          through.map((value, i) => y[i] > 0 ? value : 0),
          x,
          gain,
        );
        const all = (data: Float32Array, lengths: number[]) => tensor(on, lengths, data, dtype);
        const [xt, dyt, gt, bt] = [all(x, shape), all(through, shape), all(gain, [width]), all(bias, [width])];
        const out = dirty(on, shape, dtype), outDx = dirty(on, shape, dtype);
        const statistics = { mean: dirty(on, [width]), rstd: dirty(on, [width]) };
        const running = { mean: dirty(on, [width]), variance: dirty(on, [width]) };
        const outGain = dirty(on, [width]), outBias = dirty(on, [width]);
        withCandidate(variant, () => {
          batchNorm(out, statistics, running, xt, gt, bt, { relu: true });
          batchNormSums(outGain, outBias, dyt, xt, statistics, gt, bt, { relu: true });
          batchNormBackwardInput(outDx, dyt, xt, statistics, gt, bt, outGain, outBias, { relu: true });
        });
        await assertTensor(out, y.map((value) => Math.max(value, 0)), tolerance, "y");
        await assertTensor(outDx, dx, tolerance, "dx");
        await assertTensor(statistics.mean, mean, undefined, "mean");
        await assertTensor(statistics.rstd, rstd, 4e-6, "rstd");
        await assertTensor(outGain, dgain, 6e-6, "dgain");
        await assertTensor(outBias, dbias, 6e-6, "dbias");
      });
    }
  }
}

test("batchNorm() gives the same bits every time", async () => {
  const on = await device();
  const [rows, width] = [3001, 8];
  const x = tensor(on, [rows, width], normal(rows * width, 1)), ones = tensor(on, [width], new Float32Array(8).fill(1));
  const run = () => {
    const y = dirty(on, [rows, width]), mean = dirty(on, [width]), rstd = dirty(on, [width]);
    const running = {
      mean: tensor(on, [width], new Float32Array(8)),
      variance: tensor(on, [width], new Float32Array(8)),
    };
    batchNorm(y, { mean, rstd }, running, x, ones, ones);
    return Promise.all([y, running.mean, running.variance].map(toArray));
  };
  assert.deepEqual(await run(), await run());
});

test("the batchNorm reference's backward equals finite differences of its forward", () => {
  const x = normal(5 * 3, 1), gain = normal(3, 2), bias = normal(3, 4), dy = normal(5 * 3, 3);
  const y = (x: ArrayLike<number>, gain: ArrayLike<number>, bias: ArrayLike<number>) =>
    weigh(reference.batchNorm(x, gain, bias).y, dy);
  const { dx, dgain, dbias } = reference.batchNormBackward(dy, x, gain);
  assertGradient((x) => y(x, gain, bias), x, dx, "dx");
  assertGradient((gain) => y(x, gain, bias), gain, dgain, "dgain");
  assertGradient((bias) => y(x, gain, bias), bias, dbias, "dbias");
});

test("batchNorm() rejects running statistics of the wrong length, naming both shapes", async () => {
  const on = await device();
  const [three, four] = [dirty(on, [3]), dirty(on, [4])];
  assert.throws(
    () =>
      batchNorm(
        dirty(on, [2, 3]),
        { mean: three, rstd: three },
        { mean: three, variance: four },
        dirty(on, [2, 3]),
        three,
        three,
      ),
    /batchNorm: the running variance is f32 \[4\] where f32 \[3\] is needed/,
  );
});
