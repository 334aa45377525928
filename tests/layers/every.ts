/** One of each layer, small. */
import { selfAttention } from "../../lib/layers/attention.ts";
import { batchNorm } from "../../lib/layers/batch_norm.ts";
import { conv2d } from "../../lib/layers/conv2d.ts";
import { dropout } from "../../lib/layers/dropout.ts";
import { embedding } from "../../lib/layers/embedding.ts";
import { frozen } from "../../lib/layers/frozen.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { layerNorm } from "../../lib/layers/layer_norm.ts";
import { linear } from "../../lib/layers/linear.ts";
import { lora } from "../../lib/layers/lora.ts";
import { mambaMixer } from "../../lib/layers/mamba.ts";
import { averagePool, maxPool } from "../../lib/layers/pool.ts";
import { relu } from "../../lib/layers/relu.ts";
import { reshape } from "../../lib/layers/reshape.ts";
import { rmsNorm } from "../../lib/layers/rms_norm.ts";
import { swigluMlp } from "../../lib/layers/swiglu_mlp.ts";

/** What the letters of the table in lib/layers/README.md stand for here. */
export const size = { R: 32, D: 24, O: 40, H: 28, S: 2, L: 16, A: 2, P: 8, C: 12, E: 48, N: 8, T: 3, Q: 20, K: 4 };
const { R, D, O, H, S, L, A, P, C, E, N, T, K } = size;

/** Tokens that {@link layers}' embedding has. */
export const vocabulary = 50;

/** Each layer with the shape of its x. */
export const layers: Readonly<Record<string, readonly [Layer, readonly number[]]>> = {
  linear: [linear("l", D, O), [R, D]],
  lora: [lora(frozen(linear("l", D, O)), { rank: K }), [R, D]],
  rmsNorm: [rmsNorm("n", D), [R, D]],
  layerNorm: [layerNorm("n", D), [R, D]],
  batchNorm: [batchNorm("b", C), [S, P, P, C]],
  conv2d: [conv2d("c", C, O, { size: 3 }), [S, P, P, C]],
  maxPool: [maxPool({ size: 2, stride: 2, padding: 0 }), [S, P, P, C]],
  averagePool: [averagePool(), [S, P, P, C]],
  gelu: [gelu(), [R, D]],
  relu: [relu(), [R, D]],
  reshape: [reshape(([rows, width]) => [rows / 2, 2 * width]), [R, D]],
  dropout: [dropout("d", { rate: 0.1, length: L }), [R, D]],
  embedding: [embedding("e", vocabulary, D), [2, R]],
  selfAttention: [selfAttention("a", { width: D, heads: A, kvHeads: A, length: L, outputDeviation: 0.02 }), [R, D]],
  swigluMlp: [swigluMlp("s", { width: D, hidden: H, outputDeviation: 0.02 }), [R, D]],
  mambaMixer: [mambaMixer("m", { width: D, expand: E / D, state: N, rank: T, length: L, outputBound: 0.1 }), [R, D]],
};
