import assert from "node:assert/strict";
import { after, test } from "node:test";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { softmax, softmaxBackward } from "../../lib/ops/softmax.ts";
import { release, toArray } from "../../lib/tensor.ts";
import * as reference from "../reference/softmax.ts";
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

for (const [rows, width] of [[7, 20], [1, 3], [130, 37], [67, 516], [300, 4]]) {
  const x = normal(rows * width, 1).map((value) => 5 * value), dy = normal(rows * width, 2);
  const y = Float32Array.from(reference.softmax(x, width));

  for (const variant of rowVariants(width)) {
    const of = `of ${rows} x ${width} (${variant})`;

    test(`softmax() ${of} equals the float64 reference`, async () => {
      const on = await device(), out = tensor(on, [rows, width], x);
      withCandidate(variant, () => softmax(out));
      await assertTensor(out, reference.softmax(x, width), 2e-6);
    });

    test(`softmaxBackward() ${of} equals the float64 reference`, async () => {
      const on = await device(), dx = tensor(on, [rows, width], dy);
      withCandidate(variant, () => softmaxBackward(dx, tensor(on, [rows, width], y)));
      await assertTensor(dx, reference.softmaxBackward(dy, y, width), 4e-6);
    });
  }
}

test("softmax() and its gradient read and write f16, and sum in f32", async () => {
  const on = await device();
  if (!on.gpu.info.f16) return;
  const [x, dy] = [1, 2].map((seed) => fromHalf(toHalf(normal(9 * 70, seed)))), y = reference.softmax(x, 70);
  const out = tensor(on, [9, 70], x, "f16"), dx = tensor(on, [9, 70], dy, "f16");
  softmax(out);
  softmaxBackward(dx, out);
  await assertTensor(dx, reference.softmaxBackward(dy, y, 70), 2e-3);
  await assertTensor(out, y, 1e-3);
});

test("a row with a NaN or an infinity is NaN, by every variant, and no other row is", async () => {
  const on = await device();
  for (const variant of rowVariants(20)) {
    for (const bad of [NaN, Infinity]) {
      const x = normal(3 * 20, 1);
      x[27] = bad;
      const out = tensor(on, [3, 20], x);
      withCandidate(variant, () => softmax(out));
      const rows = [0, 1, 2].map(async (row) =>
        (await toArray(out)).subarray(20 * row, 20 * row + 20).filter(Number.isNaN).length
      );
      assert.deepEqual(await Promise.all(rows), [0, 20, 0], `${variant} ${bad}`);
      release(out);
    }
  }
});

test("the softmaxBackward reference equals finite differences of softmax's", () => {
  const x = normal(4 * 3, 1), dy = normal(4 * 3, 3);
  const gradient = reference.softmaxBackward(dy, reference.softmax(x, 3), 3);
  assertGradient((x) => weigh(reference.softmax(x, 3), dy), x, gradient, "dx");
});

test("softmaxBackward() rejects a y of another shape, naming both", async () => {
  const on = await device();
  assert.throws(
    () => softmaxBackward(dirty(on, [2, 3]), dirty(on, [2, 4])),
    /^UserError: softmaxBackward: dy is f32 \[2,3\] where f32 or f16 \[2,4\] is needed/,
  );
});
