/** LLaMa-like decoder-only transformers (Touvron et al., arXiv 2302.13971): RMSNorm, rotary positions, SwiGLU, no biases. */
import { selfAttention } from "../layers/attention.ts";
import { embeddingLayer } from "../layers/embedding.ts";
import { linear } from "../layers/linear.ts";
import { rmsNormLayer } from "../layers/rms_norm.ts";
import { sequential } from "../layers/sequential.ts";
import { swigluMlp } from "../layers/swiglu_mlp.ts";
import { packIds } from "../ops/embedding.ts";
import type { Model } from "./model.ts";

/** Sizes of a LLaMa-like model. */
export interface LlamaConfiguration {
  /** Number of different tokens. */
  readonly vocabulary: number;
  /** Features of the residual stream. */
  readonly width: number;
  /** Pairs of attention and feed-forward layers. */
  readonly blocks: number;
  /** Attention heads; they share the width. */
  readonly heads: number;
  /** Width of the feed-forward layers' inside. */
  readonly hidden: number;
  /** Tokens in a sequence. */
  readonly length: number;
}

/**
 * A LLaMa-like model. Attention and feed-forward halves are layers of their own, so that a pipeline can cut between
 * them. The projections that write to the residual stream start smaller by the square root of their number
 * (GPT-2's rule), which keeps the stream's variance independent of depth.
 */
export function llama(name: string, configuration: LlamaConfiguration): Model {
  const { vocabulary, width, blocks, heads, hidden, length } = configuration;
  const outputDeviation = 0.02 / Math.sqrt(2 * blocks);
  return {
    name,
    configuration: { ...configuration },
    task: "next-token",
    inputShape: (samples) => [2, samples * length],
    packInputs: packIds,
    layers: [
      embeddingLayer("embedding", vocabulary, width),
      ...Array.from({ length: blocks }, (_, block) => [
        selfAttention(`blocks.${block}.attention`, { width, heads, length, outputDeviation }),
        swigluMlp(`blocks.${block}.mlp`, { width, hidden, outputDeviation }),
      ]).flat(),
      sequential([rmsNormLayer("norm", width), linear("head", width, vocabulary)]),
    ],
  };
}
