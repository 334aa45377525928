import assert from "node:assert/strict";
import { after, test } from "node:test";
import { addBias, columnSum } from "../../lib/ops/bias.ts";
import * as reference from "../reference/bias.ts";
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

for (const [rows, width] of [[7, 20], [1, 3], [130, 37], [67, 516], [33, 4]]) {
  const x = normal(rows * width, 1), bias = normal(width, 2);

  for (const variant of rowVariants(width)) {
    const of = `of ${rows} x ${width} (${variant})`;

    test(`addBias() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const y = tensor(on, [rows, width], x);
      withCandidate(variant, () => addBias(y, tensor(on, [width], bias)));
      await assertTensor(y, reference.addBias(x, bias), 1e-7);
    });

    test(`columnSum() ${of} adds what the float64 reference says`, async () => {
      const on = await device();
      const out = tensor(on, [width], bias);
      withCandidate(variant, () => columnSum(out, tensor(on, [rows, width], x)));
      await assertTensor(out, reference.columnSum(x, width).map((sum, i) => sum + bias[i]), 4e-6);
    });
  }
}

test("the columnSum reference equals finite differences of addBias's", () => {
  const x = normal(4 * 3, 1), bias = normal(3, 2), dy = normal(4 * 3, 3);
  assertGradient((bias) => weigh(reference.addBias(x, bias), dy), bias, reference.columnSum(dy, 3), "dbias");
});

test("addBias() rejects a bias of the wrong length, naming both shapes", async () => {
  const on = await device();
  assert.throws(
    () => addBias(dirty(on, [2, 3]), dirty(on, [4])),
    /addBias: bias is f32 \[4\] where f32 or f16 \[3\] is needed/,
  );
});
