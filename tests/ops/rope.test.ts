import assert from "node:assert/strict";
import { after, test } from "node:test";
import { rope, ropeBackward, type RopeShape } from "../../lib/ops/rope.ts";
import { toArray } from "../../lib/tensor.ts";
import * as reference from "../reference/rope.ts";
import { assertClose, assertGradient, assertTensor, close, device, normal, tensor, weigh } from "./support.ts";

after(close);

const shapes: Record<string, RopeShape & { sequences: number }> = {
  "vec4 loads": { sequences: 3, length: 11, heads: 6, headSize: 8, rowStride: 72 },
  "scalar loads": { sequences: 2, length: 5, heads: 4, headSize: 6, rowStride: 37, base: 500 },
  "a row that ends with its heads": { sequences: 1, length: 3, heads: 2, headSize: 16, rowStride: 32 },
  "Llama 3.2's scaling": {
    ...{ sequences: 1, length: 20, heads: 2, headSize: 64, rowStride: 128, base: 500_000 },
    scaling: { factor: 32, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalLength: 8192 },
  },
  "the same heads without scaling": {
    sequences: 1,
    length: 20,
    heads: 2,
    headSize: 64,
    rowStride: 128,
    base: 500_000,
  },
};

for (const [name, { sequences, ...shape }] of Object.entries(shapes)) {
  const rows = sequences * shape.length;
  const x = normal(rows * shape.rowStride, 1);

  test(`rope() with ${name} equals the float64 reference`, async () => {
    const out = tensor(await device(), [rows, shape.rowStride], x);
    rope(out, shape);
    await assertTensor(out, reference.rope(x, shape), 1e-6);
  });

  test(`ropeBackward() with ${name} equals the float64 reference`, async () => {
    const out = tensor(await device(), [rows, shape.rowStride], x);
    ropeBackward(out, shape);
    await assertTensor(out, reference.rope(x, shape, -1), 1e-6);
  });
}

test("rope() stays exact at position 8,191", async () => {
  const shape = { length: 8192, heads: 1, headSize: 8, rowStride: 8 };
  const x = new Float32Array(8192 * 8).fill(1);
  const out = tensor(await device(), [8192, 8], x);
  rope(out, shape);
  // The angle itself is rounded to float32, by up to 2.5e-4 here, as in PyTorch: compare with the cosine of that.
  const values = await toArray(out);
  const expected = Float64Array.from(values, (_, at) => {
    const i = at % 8;
    const angle = Math.fround(Math.floor(at / 8) * Math.fround(10_000 ** (-(i % 4) / 4)));
    return i < 4 ? Math.cos(angle) - Math.sin(angle) : Math.cos(angle) + Math.sin(angle);
  });
  assertClose(values, expected, 3e-7);
});

test("the rope reference's backward equals finite differences of its forward", () => {
  const shape = { length: 3, heads: 2, headSize: 4, rowStride: 10 };
  const x = normal(4 * 10, 1), dy = normal(4 * 10, 2);
  assertGradient((x) => weigh(reference.rope(x, shape), dy), x, reference.rope(dy, shape, -1), "dx");
});

test("rope() rejects heads that do not fit a row", async () => {
  const x = tensor(await device(), [2, 8], normal(16, 1));
  assert.throws(
    () => rope(x, { length: 2, heads: 3, headSize: 4, rowStride: 8 }),
    /\[2,8\] does not hold rows of 8 that begin with 3 heads of 4/,
  );
});
