import assert from "node:assert/strict";
import { after, test } from "node:test";
import { attention, attentionBackward, type AttentionShape } from "../../lib/ops/attention.ts";
import { toArray } from "../../lib/tensor.ts";
import * as reference from "../reference/attention.ts";
import {
  assertClose,
  assertGradient,
  assertTensor,
  close,
  device,
  dirty,
  normal,
  rowVariants,
  tensor,
  weigh,
  withRowVariant,
} from "./support.ts";

after(close);

const shapes: AttentionShape[] = [
  { sequences: 2, length: 13, heads: 3, headSize: 5 },
  { sequences: 1, length: 68, heads: 2, headSize: 8 },
  { sequences: 3, length: 1, heads: 1, headSize: 4 },
  { sequences: 1, length: 150, heads: 1, headSize: 16 },
];

for (const shape of shapes) {
  const { sequences, length, heads, headSize } = shape;
  const rows = sequences * length, width = heads * headSize;
  const squares = [sequences, heads, length, length];
  const qkv = normal(rows * 3 * width, 1).map((value) => 2 * value), dout = normal(rows * width, 2);
  const { out, probabilities } = reference.attention(qkv, shape);

  for (const variant of rowVariants(length)) {
    const of = `of ${sequences} x ${length}, ${heads} heads of ${headSize} (${variant})`;

    test(`attention() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const actual = dirty(on, [rows, width]), actualProbabilities = dirty(on, squares);
      withRowVariant(
        variant,
        () => attention(actual, actualProbabilities, tensor(on, [rows, 3 * width], qkv), shape),
      );
      const values = await toArray(actualProbabilities);
      assertClose(values, probabilities, 4e-6, "probabilities");
      assert.ok(probabilities.every((value, i) => value !== 0 || values[i] === 0), "exactly 0 above the diagonal");
      await assertTensor(actual, out, 4e-6, "out");
    });

    test(`attentionBackward() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const actual = dirty(on, [rows, 3 * width]);
      withRowVariant(variant, () =>
        attentionBackward(
          actual,
          tensor(on, [rows, width], dout),
          tensor(on, [rows, 3 * width], qkv),
          tensor(on, squares, Float32Array.from(probabilities)),
          dirty(on, squares),
          shape,
        ));
      await assertTensor(actual, reference.attentionBackward(dout, qkv, probabilities, shape), 4e-6, "dqkv");
    });
  }
}

test("the attention reference's backward equals finite differences of its forward", () => {
  const shape = { sequences: 2, length: 3, heads: 2, headSize: 2 };
  const qkv = normal(6 * 12, 1), dout = normal(6 * 4, 2);
  const { probabilities } = reference.attention(qkv, shape);
  const gradient = reference.attentionBackward(dout, qkv, probabilities, shape);
  assertGradient((x) => weigh(reference.attention(x, shape).out, dout), qkv, gradient, "dqkv");
});

test("attention() rejects a tensor that is not packed, naming both shapes", async () => {
  const on = await device();
  const shape = { sequences: 1, length: 2, heads: 1, headSize: 4 };
  assert.throws(
    () => attention(dirty(on, [2, 4]), dirty(on, [1, 1, 2, 2]), dirty(on, [2, 8]), shape),
    /attention: qkv is f32 \[2,8\] where f32 \[2,12\] is needed/,
  );
});
