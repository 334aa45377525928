import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  attention,
  attentionBackward,
  type AttentionMasks,
  type AttentionShape,
  type AttentionWay,
  attentionWays,
  qkvWidth,
} from "../../lib/ops/attention.ts";
import { type DType, toArray } from "../../lib/tensor.ts";
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
  withCandidate,
} from "./support.ts";

after(close);

interface Case extends AttentionShape {
  readonly lengths?: readonly number[];
  readonly rate?: number;
  /** Where the document of each position starts, in every sequence. */
  readonly starts?: readonly number[];
}

/** Documents of these sizes, one behind the other in sequences of `length`: where that of each position starts. */
const startsOf = (length: number, ...sizes: number[]) => {
  let end = 0;
  return sizes.flatMap((size) => new Array<number>(size).fill(((end += size) - size) % length));
};

/** More features than a block of the fused kernels, and every mask. */
const wide: Case = { sequences: 2, length: 70, heads: 4, kvHeads: 2, headSize: 36, lengths: [41, 70], rate: 0.3 };

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
  { sequences: 2, length: 67, heads: 4, kvHeads: 2, headSize: 20, lengths: [65, 0] },
  wide,
  { sequences: 2, length: 13, heads: 3, headSize: 5, causal: false, rate: 0.5 },
  { sequences: 2, length: 13, heads: 3, headSize: 5, starts: startsOf(13, 4, 1, 1, 7, 6, 7) },
  { sequences: 1, length: 68, heads: 4, kvHeads: 2, headSize: 8, starts: startsOf(68, 33, 35), rate: 0.3 },
];

/** Every way, the composed one with each variant of its softmax: name, way, and what records with it. */
function waysOf(length: number): [string, AttentionWay, (record: () => void) => void][] {
  const [composed, ...fused] = attentionWays;
  return [
    ...rowVariants(length).map((variant): [string, AttentionWay, (record: () => void) => void] => [
      `composed, ${variant}`,
      composed,
      (record) => withCandidate(variant, () => withCandidate(composed.name, record)),
    ]),
    ...fused.map((way): [string, AttentionWay, (record: () => void) => void] => [
      way.name,
      way,
      (record) => withCandidate(way.name, record),
    ]),
  ];
}

const seed = 11, first = 3, salt = 5;

/** What dropout multiplies the probabilities with. */
function dropFactors({ sequences, length, heads }: AttentionShape, rate: number) {
  const ones = new Float64Array(sequences * heads * length * length).fill(1);
  return dropout(ones, length, { rate, seed, salt, firstRow: first * heads * length });
}

for (const { lengths, rate, starts, ...shape } of cases) {
  const { sequences, length, heads, kvHeads, headSize, causal = true } = shape;
  const rows = sequences * length, width = heads * headSize, packed = qkvWidth(shape);
  const masks = { lengths, starts, factors: rate ? dropFactors(shape, rate) : undefined };
  const qkv = normal(rows * packed, 1).map((value) => 2 * value), dout = normal(rows * width, 2);
  const { out, probabilities, logSumExps } = reference.attention(qkv, shape, masks);
  const expectedGradient = reference.attentionBackward(dout, qkv, probabilities, shape, masks);
  const masksOn = async () => {
    const on = await device();
    return {
      ...(lengths ? { lengths: tensor(on, [sequences], Uint32Array.from(lengths)) } : {}),
      ...(starts ? { starts: tensor(on, [sequences, length], Uint32Array.from(starts)) } : {}),
      ...(rate ? { dropout: { rate, salt, seed: tensor(on, [2], Uint32Array.of(seed, first)) } } : {}),
    };
  };

  for (const [name, way, record] of waysOf(length)) {
    const of = `of ${sequences} x ${length}, ${heads} heads of ${shape.headSize}` +
      (kvHeads ? ` that share ${kvHeads}` : "") + (causal ? "" : ", bidirectional") + (lengths ? ", padded" : "") +
      (starts ? ", of several documents" : "") +
      (rate ? ", with dropout" : "") + ` (${name})`;

    test(`attention() ${of} and its gradient equal the float64 reference`, async (t) => {
      const on = await device();
      const { info } = on.gpu;
      if (!way.supports(info, shape) || (starts && way.name !== "composed")) return t.skip("no kernel for this shape");
      // lavapipe takes 10 s to compile these kernels, once more for f16: there the case is tested in f16.
      const again = info.driver === "system" && info.f16 && rate && way.name === "attention_subgroup";
      if (again) return t.skip("tested in f16");
      const { shape: keptShape } = way.keeps(shape, "f32");
      const y = dirty(on, [rows, width]), kept = dirty(on, keptShape), dqkv = dirty(on, [rows, packed]);
      const given = await masksOn(), x = tensor(on, [rows, packed], qkv);
      record(() => attention(y, kept, x, shape, given));
      const values = await toArray(kept), sums = await toArray(y);
      if (way.name === "composed") {
        assertClose(values, probabilities, 4e-6, "probabilities");
        assert.ok(probabilities.every((value, i) => value !== 0 || values[i] === 0), "exactly 0 where nothing is seen");
      } else assertClose(values, logSumExps, 4e-6, "logSumExp");
      assertClose(sums, out, 4e-6, "out");
      record(() => attentionBackward(dqkv, tensor(on, [rows, width], dout), y, x, kept, shape, given));
      await assertTensor(dqkv, expectedGradient, 4e-6, "dqkv");
      assert.deepEqual(await toArray(kept), values, "what is kept stays as it is");
      assert.deepEqual(await toArray(y), sums, "so does the output");
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

test("attention() and its gradient over sequences of any length, empty ones too, stay finite", async () => {
  const on = await device();
  const shape = { sequences: 3, length: 40, heads: 1, headSize: 4, causal: false };
  for (const [name, way, record] of waysOf(40)) {
    if (!way.supports(on.gpu.info, shape)) continue;
    const out = dirty(on, [120, 4]), kept = dirty(on, way.keeps(shape, "f32").shape), dqkv = dirty(on, [120, 12]);
    const qkv = tensor(on, [120, 12], normal(1440, 1).map((value) => 100 * value));
    const masks = { lengths: tensor(on, [3], Uint32Array.of(0, 40, 1)) };
    record(() => attention(out, kept, qkv, shape, masks));
    record(() => attentionBackward(dqkv, tensor(on, [120, 4], normal(480, 2)), out, qkv, kept, shape, masks));
    assert.ok((await toArray(out)).every(Number.isFinite), name);
    assert.ok((await toArray(dqkv)).every(Number.isFinite), name);
  }
});

test("attention reads and writes f16, and sums in f32", async (t) => {
  const on = await device();
  const { info } = on.gpu;
  if (!info.f16) return t.skip("no f16 here");
  const halves = (values: Float32Array) => values.map((value) => Math.round(value * 256) / 256); // exact in f16
  const half: DType = "f16";
  const { rate = 0, lengths = [], ...shape } = wide;
  const { sequences, length, heads, headSize } = shape;
  const rows = sequences * length, width = heads * headSize, packed = qkvWidth(shape);
  const qkv = halves(normal(rows * packed, 1)), dout = halves(normal(rows * width, 2));
  const given = { lengths, factors: dropFactors(shape, rate) };
  const expected = reference.attention(qkv, shape, given);
  const gradient = reference.attentionBackward(dout, qkv, expected.probabilities, shape, given);
  // On lavapipe the kernels for GPUs take 8 s to compile, once more for f16: they are left to the f32 cases.
  for (const way of attentionWays.filter(({ name }) => info.driver !== "system" || name !== "attention_workgroup")) {
    if (!way.supports(info, shape)) continue;
    const masks = {
      lengths: tensor(on, [sequences], Uint32Array.from(lengths)),
      dropout: { rate, salt, seed: tensor(on, [2], Uint32Array.of(seed, first)) },
    };
    const keeps = way.keeps(shape, half);
    const out = dirty(on, [rows, width], half), kept = dirty(on, keeps.shape, keeps.dtype);
    const dqkv = dirty(on, [rows, packed], half), x = tensor(on, [rows, packed], qkv, half);
    withCandidate(way.name, () => attention(out, kept, x, shape, masks));
    assertClose(await toArray(out), expected.out, 1e-3, `${way.name}: out`);
    const dy = tensor(on, [rows, width], dout, half);
    withCandidate(way.name, () => attentionBackward(dqkv, dy, out, x, kept, shape, masks));
    assertClose(await toArray(dqkv), gradient, 2e-3, `${way.name}: dqkv`);
  }
});

test("attention() rejects a tensor that is not packed, naming both shapes", async () => {
  const on = await device();
  const shape = { sequences: 1, length: 2, heads: 1, headSize: 4 };
  assert.throws(
    () => attention(dirty(on, [2, 4]), dirty(on, [1, 1, 2, 2]), dirty(on, [2, 8]), shape),
    /attention: qkv is f32 \[2,8\] where f32 or f16 \[2,12\] is needed/,
  );
});

test("attention() keeps documents apart in f16, too, and whatever the scores are that are not seen", async (t) => {
  const on = await device();
  const shape = { sequences: 1, length: 12, heads: 1, headSize: 4 };
  const starts = startsOf(12, 5, 7);
  for (const dtype of ["f32", "f16"] as const) {
    if (dtype === "f16" && !on.gpu.info.f16) return t.skip("no f16 here");
    const values = normal(12 * 12, 1).map((value) => Math.round(value * 256) / 256); // exact in f16
    const alone = values.slice(5 * 12), wild = values.slice();
    for (let i = 0; i < 5 * 12; i++) wild[i] = i % 12 < 8 ? NaN : Infinity; // another document's
    const masks = { starts: tensor(on, [1, 12], Uint32Array.from(starts)) };
    const run = async (values: Float32Array, length: number, masks: AttentionMasks) => {
      const sizes = { ...shape, length };
      const qkv = tensor(on, [length, 12], values, dtype), out = dirty(on, [length, 4], dtype);
      const kept = dirty(on, [1, 1, length, length], dtype);
      withCandidate("composed", () => attention(out, kept, qkv, sizes, masks));
      return { out: await toArray(out), probabilities: await toArray(kept) };
    };
    const apart = await run(alone, 7, {}),
      joined = await run(wild.map((x, i) => i < 60 && i % 12 >= 8 ? 0 : x), 12, masks);
    assertClose(joined.out.slice(5 * 4), apart.out, dtype === "f32" ? 1e-6 : 2e-3, dtype);
    for (let row = 5; row < 12; row++) {
      assert.ok(joined.probabilities.subarray(row * 12, row * 12 + 5).every((p) => p === 0), `row ${row}`);
    }
  }
});

test("attention() keeps documents apart where it is causal and not padded, and refuses the rest", async () => {
  const on = await device();
  const shape = { sequences: 1, length: 2, heads: 1, headSize: 4 };
  const starts = tensor(on, [1, 2], Uint32Array.of(0, 1)), lengths = tensor(on, [1], Uint32Array.of(2));
  const run = (shape: AttentionShape, masks: AttentionMasks) => () =>
    attention(dirty(on, [2, 4]), dirty(on, [1, 1, 2, 2]), dirty(on, [2, 12]), shape, masks);
  const message = "attention: only causal attention without lengths can keep documents apart";
  assert.throws(run({ ...shape, causal: false }, { starts }), { name: "UserError", message });
  assert.throws(run(shape, { starts, lengths }), { name: "UserError", message });
  assert.throws(run(shape, { starts: lengths }), /attention: starts is u32 \[1\] where u32 \[2\] is needed/);
});

test("attention() rejects query heads that cannot share the key heads evenly", async () => {
  const on = await device();
  const shape = { sequences: 1, length: 2, heads: 3, kvHeads: 2, headSize: 4 };
  assert.throws(
    () => attention(dirty(on, [2, 12]), dirty(on, [1, 3, 2, 2]), dirty(on, [2, 28]), shape),
    /attention: 3 query heads cannot share 2 key heads evenly/,
  );
});
