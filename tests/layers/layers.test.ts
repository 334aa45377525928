import { after, test } from "node:test";
import { type AttentionOptions, selfAttention } from "../../lib/layers/attention.ts";
import { embedding } from "../../lib/layers/embedding.ts";
import { linear } from "../../lib/layers/linear.ts";
import { preNorm } from "../../lib/layers/residual.ts";
import { rmsNorm } from "../../lib/layers/rms_norm.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { swigluMlp, type SwigluOptions } from "../../lib/layers/swiglu_mlp.ts";
import { attentionWays } from "../../lib/ops/attention.ts";
import { packIds } from "../../lib/ops/embedding.ts";
import { close, device, tokens, withCandidate } from "../ops/support.ts";
import { attention } from "../reference/attention.ts";
import { addBias } from "../reference/bias.ts";
import { embedding as embeddingOf } from "../reference/embedding.ts";
import { project, transpose } from "../reference/linear.ts";
import { rmsNorm as rmsNormOf } from "../reference/norm.ts";
import { rope } from "../reference/rope.ts";
import { swiglu } from "../reference/swiglu.ts";
import { checkLayer, checkSkippedInputGradient, type Reference } from "./support.ts";

after(close);

const plus = (a: ArrayLike<number>, b: ArrayLike<number>) => Float64Array.from(a, (value, i) => value + b[i]);

const attentionBlock = (name: string, options: AttentionOptions) =>
  preNorm(rmsNorm(`${name}.norm`, options.width), selfAttention(name, options));
const mlpBlock = (name: string, options: SwigluOptions) =>
  preNorm(rmsNorm(`${name}.norm`, options.width), swigluMlp(name, options));

const attentionReference = (name: string, width: number, heads: number, length: number): Reference => (x, p) => {
  const rows = x.length / width;
  const headSize = width / heads;
  const qkv = project(rmsNormOf(x, p.get(`${name}.norm.weight`)!).y, p.get(`${name}.qkv.weight`)!, width);
  const turned = rope(qkv, { length, heads: 2 * heads, headSize, rowStride: 3 * width });
  const { out } = attention(turned, { sequences: rows / length, length, heads, headSize });
  return plus(x, project(out, p.get(`${name}.out.weight`)!, width));
};
const mlpReference = (name: string, width: number, hidden: number): Reference => (x, p) => {
  const inner = project(rmsNormOf(x, p.get(`${name}.norm.weight`)!).y, p.get(`${name}.gate_up.weight`)!, width);
  return plus(x, project(swiglu(inner, hidden), p.get(`${name}.down.weight`)!, hidden));
};

test("linear: y, dx and dW equal the reference; W needs x and dy", async () => {
  await checkLayer(await device(), {
    layer: linear("l", 6, 5),
    inputShape: [9, 6],
    reference: (x, p) => project(x, p.get("l.weight")!, 6),
    keeps: ["x", "dy"],
  });
});

test("linear with a bias: y, dx, dW and db equal the reference; W needs no more than without", async () => {
  await checkLayer(await device(), {
    layer: linear("l", 6, 5, { bias: true }),
    inputShape: [9, 6],
    reference: (x, p) => addBias(project(x, p.get("l.weight")!, 6), p.get("l.bias")!),
    keeps: ["x", "dy"],
  });
});

test("linear with its weight stored [outputs, inputs]: y, dx and dW equal the reference", async () => {
  await checkLayer(await device(), {
    layer: linear("l", 6, 5, { transposed: true, bias: true }),
    inputShape: [9, 6],
    reference: (x, p) => addBias(project(x, transpose(p.get("l.weight")!, 6), 6), p.get("l.bias")!),
    keeps: ["x", "dy"],
  });
});

// Of 64 rows the slots of neighbours touch, and one sum goes over both.
for (const [rows, width] of [[7, 10], [64, 4]]) {
  test(`RMSNorm of ${rows} x ${width}: y, dx and the gain's gradient equal the reference; W needs its sum over the rows`, async () => {
    await checkLayer(await device(), {
      layer: rmsNorm("n", width),
      inputShape: [rows, width],
      reference: (x, p) => rmsNormOf(x, p.get("n.weight")!).y,
      keeps: ["dgain"],
      keepsForSums: ["x", "rstd", "dy"],
    });
  });
}

test("embedding: y and the table's gradient equal the reference; W needs ids and dy", async () => {
  await checkLayer(await device(), {
    layer: embedding("e", 5, 6),
    inputShape: [2, 11],
    input: (index) => packIds(tokens(11, 5, index)),
    reference: (packed, p) => embeddingOf(Array.from(packed).slice(0, 11), p.get("e.weight")!, 6),
    keeps: ["ids", "dy"],
  });
});

test("self-attention: y, dx and all gradients equal the reference; the core is released after I", async () => {
  await checkLayer(await device(), {
    layer: attentionBlock("a", { width: 8, heads: 2, length: 5, outputDeviation: 0.02 }),
    inputShape: [10, 8],
    reference: attentionReference("a", 8, 2, 5),
    keeps: ["norm.dgain", "inner.qkv.x", "inner.qkv.dy", "inner.out.x", "inner.out.dy"],
    keepsForSums: [
      ...["norm.x", "norm.rstd", "norm.dy"],
      ...["inner.qkv.x", "inner.qkv.dy", "inner.out.x", "inner.out.dy"],
    ],
  });
});

test("self-attention without the score matrix: the same, on every kernel", async () => {
  const on = await device();
  const layer = attentionBlock("a", { width: 8, heads: 2, length: 5, outputDeviation: 0.02 });
  const shape = { sequences: 2, length: 5, heads: 2, headSize: 4 };
  for (const way of attentionWays.filter((each) => each.supports(on.gpu.info, shape))) {
    await checkLayer(on, {
      layer: {
        ...layer,
        forward: (y, x, saved) => withCandidate(way.name, () => layer.forward(y, x, saved)),
        backwardInput: (dx, dy, saved) => withCandidate(way.name, () => layer.backwardInput(dx, dy, saved)),
      },
      inputShape: [10, 8],
      reference: attentionReference("a", 8, 2, 5),
      keeps: ["norm.dgain", "inner.qkv.x", "inner.qkv.dy", "inner.out.x", "inner.out.dy"],
    });
  }
});

test("SwiGLU feed-forward: y, dx and all gradients equal the reference; the gate is released after I", async () => {
  await checkLayer(await device(), {
    layer: mlpBlock("m", { width: 8, hidden: 6, outputDeviation: 0.02 }),
    inputShape: [16, 8],
    reference: mlpReference("m", 8, 6),
    keeps: ["norm.dgain", "inner.gate_up.x", "inner.gate_up.dy", "inner.down.x", "inner.down.dy"],
  });
});

test("a chain of layers equals its layers one after another", async () => {
  const [first, second] = [attentionReference("a", 8, 2, 4), mlpReference("m", 8, 6)];
  await checkLayer(await device(), {
    layer: sequential([
      attentionBlock("a", { width: 8, heads: 2, length: 4, outputDeviation: 0.02 }),
      mlpBlock("m", { width: 8, hidden: 6, outputDeviation: 0.02 }),
      linear("head", 8, 3),
    ]),
    inputShape: [8, 8],
    reference: (x, p, sides) => project(second(first(x, p, sides), p, sides), p.get("head.weight")!, 8),
    keeps: [
      ...["norm.dgain", "inner.qkv.x", "inner.qkv.dy", "inner.out.x", "inner.out.dy"].map((name) => `0.${name}`),
      ...["norm.dgain", "inner.gate_up.x", "inner.gate_up.dy", "inner.down.x", "inner.down.dy"].map(
        (name) => `1.${name}`,
      ),
      ...["2.x", "2.dy"],
    ],
  });
});

test("the first layer of stage 0 computes no input gradient, and its weight gradients are the same", async () => {
  await checkSkippedInputGradient(await device(), linear("l", 6, 5), [9, 6]);
  await checkSkippedInputGradient(await device(), rmsNorm("n", 6), [9, 6]);
  const options = { width: 8, heads: 2, length: 4, outputDeviation: 0.02 };
  await checkSkippedInputGradient(await device(), attentionBlock("a", options), [8, 8]);
});
