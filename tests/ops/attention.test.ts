import assert from "node:assert/strict";
import { after, test } from "node:test";
import { attention, attentionBackward, type AttentionShape, qkvWidth } from "../../lib/ops/attention.ts";
import { toArray } from "../../lib/tensor.ts";
import * as reference from "../reference/attention.ts";
import { dropout } from "../reference/dropout.ts";
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

interface Case extends AttentionShape {
  readonly lengths?: readonly number[];
  readonly rate?: number;
}

const cases: Case[] = [
  { sequences: 2, length: 13, heads: 3, headSize: 5 },
  { sequences: 1, length: 68, heads: 2, headSize: 8 },
  { sequences: 3, length: 1, heads: 1, headSize: 4 },
  { sequences: 1, length: 150, heads: 1, headSize: 16 },
  { sequences: 2, length: 12, heads: 2, headSize: 4, causal: false },
  { sequences: 1, length: 70, heads: 2, headSize: 3, causal: false },
  { sequences: 4, length: 12, heads: 2, headSize: 4, causal: false, lengths: [12, 1, 5, 8] },
  { sequences: 3, length: 9, heads: 2, headSize: 4, lengths: [9, 1, 4] },
  { sequences: 2, length: 13, heads: 6, kvHeads: 2, headSize: 5 },
  { sequences: 2, length: 12, heads: 4, kvHeads: 1, headSize: 4, causal: false, lengths: [7, 12] },
  { sequences: 2, length: 12, heads: 4, kvHeads: 2, headSize: 4, lengths: [7, 12], rate: 0.3 },
  { sequences: 2, length: 13, heads: 3, headSize: 5, causal: false, rate: 0.5 },
];

const seed = 11, first = 3, salt = 5;

for (const { lengths, rate, ...shape } of cases) {
  const { sequences, length, heads, kvHeads, headSize, causal = true } = shape;
  const rows = sequences * length, width = heads * headSize, packed = qkvWidth(shape);
  const squares = [sequences, heads, length, length];
  const factors = rate && dropout(new Float64Array(sequences * heads * length * length).fill(1), length, {
    rate,
    seed,
    salt,
    firstRow: first * heads * length,
  });
  const masks = { lengths, factors: factors || undefined };
  const qkv = normal(rows * packed, 1).map((value) => 2 * value), dout = normal(rows * width, 2);
  const { out, probabilities } = reference.attention(qkv, shape, masks);
  const masksOn = async () => {
    const on = await device();
    return {
      ...(lengths ? { lengths: tensor(on, [sequences], Uint32Array.from(lengths)) } : {}),
      ...(rate ? { dropout: { rate, salt, seed: tensor(on, [2], Uint32Array.of(seed, first)) } } : {}),
    };
  };

  for (const variant of rowVariants(length)) {
    const of = `of ${sequences} x ${length}, ${heads} heads of ${headSize}` +
      (kvHeads ? ` that share ${kvHeads}` : "") + (causal ? "" : ", bidirectional") + (lengths ? ", padded" : "") +
      (rate ? ", with dropout" : "") + ` (${variant})`;

    test(`attention() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const actual = dirty(on, [rows, width]), actualProbabilities = dirty(on, squares);
      const given = await masksOn();
      withRowVariant(
        variant,
        () => attention(actual, actualProbabilities, tensor(on, [rows, packed], qkv), shape, given),
      );
      const values = await toArray(actualProbabilities);
      assertClose(values, probabilities, 4e-6, "probabilities");
      assert.ok(probabilities.every((value, i) => value !== 0 || values[i] === 0), "exactly 0 where nothing is seen");
      await assertTensor(actual, out, 4e-6, "out");
    });

    test(`attentionBackward() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const actual = dirty(on, [rows, packed]);
      const given = await masksOn();
      withRowVariant(variant, () =>
        attentionBackward(
          actual,
          tensor(on, [rows, width], dout),
          tensor(on, [rows, packed], qkv),
          tensor(on, squares, Float32Array.from(probabilities)),
          dirty(on, squares),
          shape,
          given,
        ));
      await assertTensor(actual, reference.attentionBackward(dout, qkv, probabilities, shape, masks), 4e-6, "dqkv");
    });
  }
}

test("the attention reference's backward equals finite differences of its forward, under every mask", () => {
  const plain = { sequences: 2, length: 3, heads: 2, headSize: 2 };
  const factors = normal(2 * 2 * 3 * 3, 3).map((value) => value > 0 ? 1.5 : 0);
  for (
    const [shape, masks] of [
      [plain, {}],
      [{ ...plain, kvHeads: 1, causal: false }, { lengths: [2, 3], factors }],
    ] as [AttentionShape, reference.Masks][]
  ) {
    const qkv = normal(6 * qkvWidth(shape), 1), dout = normal(6 * 4, 2);
    const { probabilities } = reference.attention(qkv, shape, masks);
    const gradient = reference.attentionBackward(dout, qkv, probabilities, shape, masks);
    assertGradient((x) => weigh(reference.attention(x, shape, masks).out, dout), qkv, gradient, "dqkv");
  }
});

test("attention() over an empty sequence stays finite", async () => {
  const on = await device();
  const shape = { sequences: 2, length: 4, heads: 1, headSize: 4, causal: false };
  for (const variant of rowVariants(4)) {
    const out = dirty(on, [8, 4]), probabilities = dirty(on, [2, 1, 4, 4]);
    const qkv = tensor(on, [8, 12], normal(96, 1)), lengths = tensor(on, [2], Uint32Array.of(0, 4));
    withRowVariant(variant, () => attention(out, probabilities, qkv, shape, { lengths }));
    assert.ok((await toArray(out)).every(Number.isFinite), variant);
  }
});

test("attention() rejects a tensor that is not packed, naming both shapes", async () => {
  const on = await device();
  const shape = { sequences: 1, length: 2, heads: 1, headSize: 4 };
  assert.throws(
    () => attention(dirty(on, [2, 4]), dirty(on, [1, 1, 2, 2]), dirty(on, [2, 8]), shape),
    /attention: qkv is f32 \[2,8\] where f32 \[2,12\] is needed/,
  );
});

test("attention() rejects query heads that cannot share the key heads evenly", async () => {
  const on = await device();
  const shape = { sequences: 1, length: 2, heads: 3, kvHeads: 2, headSize: 4 };
  assert.throws(
    () => attention(dirty(on, [2, 12]), dirty(on, [1, 3, 2, 2]), dirty(on, [2, 28]), shape),
    /attention: 3 query heads cannot share 2 key heads evenly/,
  );
});
