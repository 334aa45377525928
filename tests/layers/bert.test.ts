import assert from "node:assert/strict";
import { after, test } from "node:test";
import { type AttentionOptions, selfAttention } from "../../lib/layers/attention.ts";
import { dropout, withDropout } from "../../lib/layers/dropout.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import { layerNorm } from "../../lib/layers/layer_norm.ts";
import { linear } from "../../lib/layers/linear.ts";
import { positionedEmbedding } from "../../lib/layers/positioned_embedding.ts";
import { postNorm, preNorm } from "../../lib/layers/residual.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { packIds } from "../../lib/ops/embedding.ts";
import { hash } from "../../lib/random.ts";
import { close, device, tokens } from "../ops/support.ts";
import { attention } from "../reference/attention.ts";
import { addBias } from "../reference/bias.ts";
import { dropout as dropoutOf } from "../reference/dropout.ts";
import { embedding as embeddingOf } from "../reference/embedding.ts";
import { gelu as geluOf } from "../reference/gelu.ts";
import { layerNorm as layerNormOf } from "../reference/layer_norm.ts";
import { project } from "../reference/linear.ts";
import { rope } from "../reference/rope.ts";
import { checkLayer, checkSkippedInputGradient, type Reference } from "./support.ts";

after(close);

type Values = Parameters<Reference>[1];
type Sides = Parameters<Reference>[2];

const plus = (a: ArrayLike<number>, b: ArrayLike<number>) => Float64Array.from(a, (value, i) => value + b[i]);
const norm = (name: string, x: ArrayLike<number>, p: Values) =>
  layerNormOf(x, p.get(`${name}.weight`)!, p.get(`${name}.bias`)!, 1e-5).y;
const projectBiased = (name: string, x: ArrayLike<number>, inputs: number, p: Values) =>
  addBias(project(x, p.get(`${name}.weight`)!, inputs), p.get(`${name}.bias`)!);
/** `rows` belong to each sample. */
const drop = (name: string, x: ArrayLike<number>, width: number, rate: number, rows: number, { seed }: Sides) =>
  dropoutOf(x, width, { rate, seed: seed[0], salt: hash(name), firstRow: seed[1] * rows });

const attentionReference = (name: string, options: AttentionOptions): Reference => (x, p, sides) => {
  const { width, heads, kvHeads = heads, length, rotary = true, bias = false, padded, documents, dropout: rate = 0 } =
    options;
  const { headSize = width / heads, ropeTheta: base, ropeScaling: scaling } = options;
  const rows = x.length / width, rowStride = (heads + 2 * kvHeads) * headSize;
  const through = (part: string, x: ArrayLike<number>, inputs: number, biased: boolean) =>
    biased ? projectBiased(`${name}.${part}`, x, inputs, p) : project(x, p.get(`${name}.${part}.weight`)!, inputs);
  const qkv = through("qkv", x, width, bias !== false);
  const turned = rotary ? rope(qkv, { length, heads: heads + kvHeads, headSize, rowStride, base, scaling }) : qkv;
  const ones = new Float64Array(rows * heads * length).fill(1);
  const { out } = attention(turned, { sequences: rows / length, causal: true, ...options, headSize }, {
    lengths: padded ? sides.lengths : undefined,
    starts: documents ? sides.starts : undefined,
    factors: rate ? drop(name, ones, length, rate, heads * length, sides) : undefined,
  });
  return through("out", out, heads * headSize, bias === true);
};

const samples = 2;
/** Lengths up to 5 and, for the first samples of a batch of micro-batches of 2, the seed. */
const sides = (index: number) => ({
  lengths: Uint32Array.of(5 - index, 2),
  starts: Uint32Array.of(0, 0, 2, 2, 2, 0, 1, 1, 3 - index, 4),
  seed: Uint32Array.of(77, samples * index),
});

test("LayerNorm: y, dx and the gradients of gain and bias equal the reference; W needs their sums over the rows", async () => {
  await checkLayer(await device(), {
    layer: layerNorm("n", 10),
    inputShape: [7, 10],
    reference: (x, p) => norm("n", x, p),
    keeps: ["dgain", "dbias"],
    keepsForSums: ["x", "statistics", "dy"],
  });
});

for (const form of ["erf", "tanh"] as const) {
  test(`GELU (${form}): y and dx equal the reference; nothing is kept after I`, async () => {
    await checkLayer(await device(), {
      layer: gelu(form),
      inputShape: [7, 6],
      reference: (x) => geluOf(x, form),
      keeps: [],
    });
  });
}

test("dropout: y and dx equal the reference, the mask goes on from one micro-batch to the next; nothing is kept", async () => {
  await checkLayer(await device(), {
    layer: dropout("d", { rate: 0.4, length: 5 }),
    inputShape: [10, 6],
    sides,
    reference: (x, _, sides) => drop("d", x, 6, 0.4, 5, sides),
    keeps: [],
  });
});

test("dropout of rate 0 adds no layer; rates that are none are rejected", () => {
  const layer = linear("l", 2, 2);
  assert.deepEqual(withDropout("d", { rate: 0, length: 5 }, layer), [layer]);
  assert.equal(withDropout("d", { rate: 0.1, length: 5 }, layer).length, 2);
  assert.throws(() => dropout("d", { rate: 1, length: 5 }), /d: a dropout rate is at least 0 and below 1, not 1/);
});

test("embedding with positions and types: y and all gradients equal the reference; W needs ids and dy", async () => {
  for (const length of [4, 5]) {
    const rows = 3 * length;
    await checkLayer(await device(), {
      layer: positionedEmbedding("e", { vocabulary: 5, width: 6, positions: 7, types: 2, length }),
      inputShape: [2, rows],
      input: (index) => packIds(tokens(rows, 5, index)),
      reference: (packed, p) => {
        const sum = embeddingOf(Array.from(packed).slice(0, rows), p.get("e.token.weight")!, 6);
        const [position, type] = [p.get("e.position.weight")!, p.get("e.type.weight")!];
        return sum.map((value, i) => value + position[i % (length * 6)] + type[i % 6]);
      },
      keeps: ["token.ids", "token.dy", "dy"],
    });
  }
});

test("embedding with positions rejects sequences that are too long", () => {
  assert.throws(
    () => positionedEmbedding("e", { vocabulary: 5, width: 6, positions: 4, types: 2, length: 5 }),
    /e: sequences of 5 tokens need more than 4 positions/,
  );
});

const kept = ["qkv.x", "qkv.dy", "out.x", "out.dy"];
const cases: Record<string, Partial<AttentionOptions>> = {
  "as in LLaMa, with shared keys": { heads: 4, kvHeads: 2 },
  "as in Llama 3, with heads wider than their share": {
    ...{ headSize: 6, ropeTheta: 500 },
    ropeScaling: { factor: 4, lowFrequencyFactor: 0.01, highFrequencyFactor: 0.9, originalLength: 6 },
  },
  "as in Qwen 2": { heads: 4, kvHeads: 2, bias: "qkv" },
  "of several documents": { heads: 4, kvHeads: 2, documents: true },
  "of several documents, with dropout": { documents: true, dropout: 0.3 },
  "as in BERT": { causal: false, rotary: false, bias: true, padded: true },
  "as in BERT, with dropout": { causal: false, rotary: false, bias: true, padded: true, dropout: 0.3 },
};
for (const [name, chosen] of Object.entries(cases)) {
  test(`attention ${name}: y, dx and all gradients equal the reference; the core is released after I`, async () => {
    const options = { width: 8, heads: 2, length: 5, outputDeviation: 0.02, ...chosen };
    await checkLayer(await device(), {
      layer: selfAttention("a", options),
      inputShape: [10, 8],
      sides,
      reference: attentionReference("a", options),
      keeps: kept,
    });
  });
}

test("attention rejects heads that do not divide the width or share keys evenly, and rates that are none", () => {
  const options = { width: 12, heads: 4, length: 5, outputDeviation: 0.02 };
  assert.throws(() => selfAttention("a", { ...options, heads: 5 }), /a: width 12 over 5 heads gives no even head size/);
  assert.throws(() => selfAttention("a", options), /a: width 12 over 4 heads gives no even head size/);
  for (const headSize of [3, 0, 2.5]) {
    const message = `a: headSize ${headSize} must be even, since positions turn pairs of features`;
    assert.throws(() => selfAttention("a", { ...options, headSize }), { name: "UserError", message });
  }
  assert.throws(
    () => selfAttention("a", { ...options, kvHeads: 3, rotary: false }),
    /a: 4 query heads cannot share 3 key and value heads evenly/,
  );
  for (const other of [{ causal: false }, { padded: true }]) {
    const message = "a: only causal attention that is not padded can keep documents apart";
    const heads = { heads: 2, documents: true, ...other };
    assert.throws(() => selfAttention("a", { ...options, ...heads }), { name: "UserError", message });
  }
  assert.throws(() => selfAttention("a", { ...options, rotary: false, dropout: 1 }), /a: a dropout rate is at least 0/);
});

test("a post-norm feed-forward block with dropout: y, dx and all gradients equal the reference; W needs no more", async () => {
  const layer = postNorm(
    sequential(withDropout(
      "d",
      { rate: 0.25, length: 5 },
      linear("up", 8, 6, { bias: true }),
      gelu(),
      linear("down", 6, 8, { bias: true }),
    )),
    layerNorm("n", 8),
  );
  assert.deepEqual(layer.reads.sides, ["seed"]);
  await checkLayer(await device(), {
    layer,
    inputShape: [10, 8],
    sides,
    reference: (x, p, sides) => {
      const inside = projectBiased("down", geluOf(projectBiased("up", x, 8, p), "erf"), 6, p);
      return norm("n", plus(x, drop("d", inside, 8, 0.25, 5, sides)), p);
    },
    keeps: ["inner.0.x", "inner.0.dy", "inner.2.x", "inner.2.dy", "norm.dgain", "norm.dbias"],
    keepsForSums: [
      ...["inner.0.x", "inner.0.dy", "inner.2.x", "inner.2.dy"],
      ...["norm.x", "norm.statistics", "norm.dy"],
    ],
  });
});

test("a post-norm attention block: y, dx and all gradients equal the reference; W needs no more", async () => {
  const options = { width: 8, heads: 2, length: 5, outputDeviation: 0.02, causal: false, rotary: false, bias: true };
  const inner = attentionReference("a", options);
  await checkLayer(await device(), {
    layer: postNorm(selfAttention("a", options), layerNorm("n", 8)),
    inputShape: [10, 8],
    reference: (x, p, sides) => norm("n", plus(x, inner(x, p, sides)), p),
    keeps: [...kept.map((name) => `inner.${name}`), "norm.dgain", "norm.dbias"],
  });
});

test("a layer norm and a post-norm block compute no input gradient where none is wanted, and their weight gradients are the same", async () => {
  await checkSkippedInputGradient(await device(), layerNorm("n", 6), [9, 6]);
  const layer = postNorm(linear("l", 6, 6, { bias: true }), layerNorm("n", 6));
  await checkSkippedInputGradient(await device(), layer, [9, 6]);
});

test("a pre-norm block adds its residual gradient around a layer norm too: y, dx and all gradients equal the reference", async () => {
  await checkLayer(await device(), {
    layer: preNorm(layerNorm("n", 6), linear("l", 6, 6, { bias: true })),
    inputShape: [9, 6],
    reference: (x, p) => plus(x, addBias(project(norm("n", x, p), p.get("l.weight")!, 6), p.get("l.bias")!)),
    keeps: ["norm.dgain", "norm.dbias", "inner.x", "inner.dy"],
    keepsForSums: ["norm.x", "norm.statistics", "norm.dy", "inner.x", "inner.dy"],
  });
});
