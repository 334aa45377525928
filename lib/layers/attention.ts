/** Causal self-attention with rotary positions, pre-norm and residual: y = x + out(attention(rope(qkv(norm(x))))). */
import { attention, attentionBackward } from "../ops/attention.ts";
import { add } from "../ops/elementwise.ts";
import { rope, ropeBackward } from "../ops/rope.ts";
import { empty, release } from "../tensor.ts";
import type { Layer } from "./layer.ts";
import { linear } from "./linear.ts";
import { rmsNormLayer } from "./rms_norm.ts";

/** Shape of a self-attention layer. */
export interface AttentionOptions {
  readonly width: number;
  readonly heads: number;
  /** Tokens in a sequence: a micro-batch of R rows holds R / length sequences. */
  readonly length: number;
  /** Standard deviation that the output projection starts with. */
  readonly outputDeviation: number;
}

/**
 * The attention half of a transformer block. Query, key and value are one projection, so that each pass runs one
 * matmul for the three. The attention core has no parameters: I releases its tensors at once.
 */
export function selfAttention(name: string, { width, heads, length, outputDeviation }: AttentionOptions): Layer {
  const headSize = width / heads;
  if (!Number.isInteger(headSize) || headSize % 2) {
    throw new Error(`${name}: width ${width} over ${heads} heads gives no even head size`);
  }
  const norm = rmsNormLayer(`${name}.norm`, width);
  const qkvProjection = linear(`${name}.qkv`, width, 3 * width);
  const output = linear(`${name}.out`, width, width, { initial: { normal: outputDeviation } });
  const parts = [["norm", norm], ["qkv", qkvProjection], ["out", output]] as const;
  const positions = { length, heads: 2 * heads, headSize, rowStride: 3 * width };
  const core = (rows: number) => ({ sequences: rows / length, length, heads, headSize });

  return {
    parameters: parts.flatMap(([, layer]) => layer.parameters),
    keepsInput: true,
    keepsGradient: true,
    outputShape: (shape) => shape,
    flops(shape) {
      const [n, q, o] = [norm.flops(shape), qkvProjection.flops(shape), output.flops(shape)];
      const scores = 4 * shape[0] * length * width; // scores and weighted sum, each over the whole square
      return { f: n.f + q.f + o.f + scores, i: n.i + q.i + o.i + 2 * scores, w: n.w + q.w + o.w };
    },
    forward(y, x, saved) {
      const rows = x.shape[0];
      const normed = saved.slot("normed", [rows, width], "activations");
      norm.forward(normed, x, saved.child("norm"));
      const qkv = empty(x.device, [rows, 3 * width], "activations");
      qkvProjection.forward(qkv, normed, saved.child("qkv"));
      rope(qkv, positions);
      const probabilities = empty(x.device, [rows / length, heads, length, length], "activations");
      const context = saved.slot("context", [rows, width], "activations");
      attention(context, probabilities, qkv, core(rows));
      const projected = empty(x.device, [rows, width], "workspace");
      output.forward(projected, context, saved.child("out"));
      add(y, x, projected);
      saved.keep("qkv", qkv);
      saved.keep("probabilities", probabilities);
      release(normed, qkv, probabilities, context, projected);
    },
    backwardInput(dx, dy, saved) {
      const rows = dy.shape[0];
      const dcontext = empty(dy.device, [rows, width], "workspace");
      output.backwardInput(dcontext, dy, saved.child("out"));
      const probabilities = saved.get("probabilities");
      const scratch = empty(dy.device, probabilities.shape, "workspace");
      const dqkv = saved.slot("dqkv", [rows, 3 * width], "derivatives");
      attentionBackward(dqkv, dcontext, saved.get("qkv"), probabilities, scratch, core(rows));
      saved.drop("qkv", "probabilities");
      release(dcontext, scratch);
      ropeBackward(dqkv, positions);
      const dnormed = saved.slot("dnormed", [rows, width], "derivatives");
      qkvProjection.backwardInput(dnormed, dqkv, saved.child("qkv"));
      norm.backwardInput(dx, dnormed, saved.child("norm"), dy);
      release(dqkv, dnormed);
    },
    backwardWeight(saved) {
      for (const [child, layer] of parts) layer.backwardWeight!(saved.map((each) => each.child(child)));
    },
  };
}
