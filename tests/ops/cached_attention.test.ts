import assert from "node:assert/strict";
import { after, test } from "node:test";
import { type AttentionShape, qkvWidth } from "../../lib/ops/attention.ts";
import { appendKeys, cachedAttention, keptWidth } from "../../lib/ops/cached_attention.ts";
import { rope } from "../../lib/ops/rope.ts";
import { type Tensor, toArray } from "../../lib/tensor.ts";
import { attention } from "../reference/attention.ts";
import { rope as turned } from "../reference/rope.ts";
import { assertClose, assertTensor, close, device, dirty, normal, tensor } from "./support.ts";

after(close);

const shapes: Record<string, AttentionShape> = {
  "heads of their own": { sequences: 1, length: 9, heads: 3, headSize: 6 },
  "shared keys, more than a workgroup has lanes": { sequences: 1, length: 150, heads: 6, kvHeads: 2, headSize: 5 },
  "heads of more features than a workgroup has lanes": { sequences: 1, length: 5, heads: 2, kvHeads: 1, headSize: 130 },
};

/** Runs a sequence piece by piece, each of so many rows, and gives all outputs. */
async function inPieces(qkv: Float32Array, shape: AttentionShape, sizes: readonly number[], dtype: "f32" | "f16") {
  const gpu = await device(), width = qkvWidth(shape), inner = shape.heads * shape.headSize;
  const kept: Tensor = dirty(gpu, [shape.length + 3, keptWidth(shape)], dtype);
  const out = new Float32Array(shape.length * inner);
  let at = 0;
  for (const rows of sizes) {
    const piece = tensor(gpu, [rows, width], qkv.slice(at * width, (at + rows) * width), dtype);
    const before = tensor(gpu, [1], Uint32Array.of(at)), y = dirty(gpu, [rows, inner], dtype);
    appendKeys(kept, piece, before, shape);
    cachedAttention(y, piece, kept, before, shape);
    out.set(await toArray(y), at * inner);
    at += rows;
  }
  assert.equal(at, shape.length);
  return out;
}

for (const [name, shape] of Object.entries(shapes)) {
  const qkv = normal(shape.length * qkvWidth(shape), 3);
  const { length } = shape;
  for (const sizes of [Array(length).fill(1), [3, 1, length - 4], [length]]) {
    test(`cachedAttention() of ${name} in ${sizes.length} pieces equals whole attention in float64`, async () => {
      assertClose(await inPieces(qkv, shape, sizes, "f32"), attention(qkv, shape).out, 2e-6);
    });
  }
  test(`cachedAttention() of ${name} reads and writes f16`, async (t) => {
    if (!(await device()).gpu.info.f16) return t.skip("this device has no f16");
    const halves = await toArray(tensor(await device(), [qkv.length], qkv, "f16"));
    assertClose(await inPieces(halves, shape, [2, length - 2], "f16"), attention(halves, shape).out, 1e-3);
  });
}

test("cachedAttention() keeps what is no number among queries, keys and values it sees, and only there", async () => {
  const shape = { sequences: 1, length: 70, heads: 2, headSize: 4 }, width = qkvWidth(shape);
  for (const [column, heads] of [[1, [0]], [9, [0]], [21, [1]]] as const) { // a query, a key, a value
    for (const bad of [NaN, Infinity]) {
      const qkv = normal(70 * width, 5);
      qkv[66 * width + 1] = 1; // of the same head, lest a score of minus infinity rightly counts for nothing
      qkv[66 * width + 9] = 1;
      qkv[66 * width + column] = bad;
      const out = await inPieces(qkv, shape, [60, 6, 1, 1, 1, 1], "f32");
      const isLost = (row: number, head: number) =>
        [0, 1, 2, 3].some((i) => !Number.isFinite(out[row * 8 + head * 4 + i]));
      for (let row = 0; row < 66; row++) assert.ok(!isLost(row, 0) && !isLost(row, 1), `row ${row} comes before`);
      for (const head of heads) assert.ok(isLost(66, head), `${bad} in column ${column} is lost`);
      if (column === 21) { for (let row = 67; row < 70; row++) assert.ok(isLost(row, 1), "and for those behind"); }
    }
  }
});

test("cachedAttention() refuses heads that it has no room for, and more tokens than are kept", async () => {
  const gpu = await device(), before = tensor(gpu, [1], Uint32Array.of(0));
  const large = { heads: 1, headSize: 257 };
  assert.throws(
    () => cachedAttention(dirty(gpu, [1, 257]), dirty(gpu, [1, 771]), dirty(gpu, [2, 514]), before, large),
    /256 features at most, not 257/,
  );
  const small = { heads: 1, headSize: 2 };
  assert.throws(
    () => appendKeys(dirty(gpu, [2, 4]), dirty(gpu, [3, 6]), before, small),
    /3 tokens are more than the 2 that can be kept/,
  );
});

for (const headSize of [8, 6]) {
  test(`rope() from a position on turns heads of ${headSize} as in the whole sequence`, async () => {
    const shape = { length: 40, heads: 2, headSize, rowStride: 3 * headSize }, gpu = await device();
    const x = normal(40 * shape.rowStride, 1), expected = turned(x, shape);
    const piece = tensor(gpu, [3, shape.rowStride], x.slice(37 * shape.rowStride));
    rope(piece, { ...shape, length: 3 }, tensor(gpu, [1], Uint32Array.of(37)));
    await assertTensor(piece, expected.slice(37 * shape.rowStride), 2e-6);
  });
}
