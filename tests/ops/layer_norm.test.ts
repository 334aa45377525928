import assert from "node:assert/strict";
import { after, test } from "node:test";
import { layerNorm, layerNormBackwardInput, layerNormSums } from "../../lib/ops/layer_norm.ts";
import * as reference from "../reference/layer_norm.ts";
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

const epsilon = 1e-5;

for (const [rows, width] of [[7, 20], [1, 5], [130, 37], [67, 516], [3, 4]]) {
  for (const variant of rowVariants(width)) {
    const of = `of ${rows} x ${width} (${variant})`;
    // Means away from 0, where a variance from the sum of squares would cancel.
    const x = normal(rows * width, 1).map((value) => value + 3), gain = normal(width, 2);
    const bias = normal(width, 4), dy = normal(rows * width, 3);
    const { y, statistics } = reference.layerNorm(x, gain, bias, epsilon);
    const { dx, dgain, dbias } = reference.layerNormBackward(dy, x, statistics, gain);
    const shape = [rows, width];

    test(`layerNorm() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const out = dirty(on, shape), outStatistics = dirty(on, [rows, 2]);
      withCandidate(variant, () =>
        layerNorm(
          out,
          outStatistics,
          tensor(on, shape, x),
          tensor(on, [width], gain),
          tensor(on, [width], bias),
          epsilon,
        ));
      await assertTensor(out, y, undefined, "y");
      await assertTensor(outStatistics, statistics, undefined, "statistics");
    });

    test(`layerNormBackwardInput() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const out = dirty(on, shape);
      withCandidate(variant, () =>
        layerNormBackwardInput(
          out,
          tensor(on, shape, dy),
          tensor(on, shape, x),
          tensor(on, [rows, 2], Float32Array.from(statistics)),
          tensor(on, [width], gain),
        ));
      await assertTensor(out, dx, 4e-6, "dx");
    });

    test(`layerNormSums() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const outGain = dirty(on, [width]), outBias = dirty(on, [width]);
      withCandidate(variant, () =>
        layerNormSums(
          outGain,
          outBias,
          tensor(on, shape, dy),
          tensor(on, shape, x),
          tensor(on, [rows, 2], Float32Array.from(statistics)),
        ));
      await assertTensor(outGain, dgain, 4e-6, "dgain");
      await assertTensor(outBias, dbias, 4e-6, "dbias");
    });
  }
}

test("the layerNorm reference's backward equals finite differences of its forward", () => {
  const x = normal(3 * 5, 1), gain = normal(5, 2), bias = normal(5, 4), dy = normal(3 * 5, 3);
  const y = (x: ArrayLike<number>, gain: ArrayLike<number>, bias: ArrayLike<number>) =>
    weigh(reference.layerNorm(x, gain, bias, epsilon).y, dy);
  const { statistics } = reference.layerNorm(x, gain, bias, epsilon);
  const { dx, dgain, dbias } = reference.layerNormBackward(dy, x, statistics, gain);
  assertGradient((x) => y(x, gain, bias), x, dx, "dx");
  assertGradient((gain) => y(x, gain, bias), gain, dgain, "dgain");
  assertGradient((bias) => y(x, gain, bias), bias, dbias, "dbias");
});

test("layerNorm() rejects a bias of the wrong length, naming both shapes", async () => {
  const on = await device();
  assert.throws(
    () => layerNorm(dirty(on, [2, 3]), dirty(on, [2, 2]), dirty(on, [2, 3]), dirty(on, [3]), dirty(on, [4]), epsilon),
    /layerNorm: bias is f32 \[4\] where f32 or f16 \[3\] is needed/,
  );
});
