/** LLaMa-like decoder-only transformers (Touvron et al., arXiv 2302.13971): RMSNorm, rotary positions, SwiGLU, no biases. */
import { selfAttention } from "../layers/attention.ts";
import { embedding } from "../layers/embedding.ts";
import { linear } from "../layers/linear.ts";
import { preNorm } from "../layers/residual.ts";
import { rmsNorm } from "../layers/rms_norm.ts";
import { sequential } from "../layers/sequential.ts";
import { swigluMlp } from "../layers/swiglu_mlp.ts";
import { packIds } from "../ops/embedding.ts";
import { expectFields, flag, optional, positive, real, type Rules } from "../rules.ts";
import { byteVocabulary } from "../bytes.ts";
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
  /** Key and value heads, as many by default; fewer make grouped-query attention. */
  readonly kvHeads?: number;
  /** Width of the feed-forward layers' inside. */
  readonly hidden: number;
  /** Tokens in a sequence. */
  readonly length: number;
  /** What RMSNorm adds to the mean square, Hugging Face's `rms_norm_eps`; 1e-5 by default. */
  readonly epsilon?: number;
  /** Base of the rotary positions' frequencies, Hugging Face's `rope_theta`; 10,000 by default. */
  readonly theta?: number;
  /** Whether the output head is the embedding's table, as in Llama 3.2 1B and 3B; false by default. */
  readonly tied?: boolean;
}

/** LLaMa-like models by name. Those of text as bytes can be trained as they are. */
export const llamaConfigurations: Readonly<Record<string, LlamaConfiguration>> = {
  // 0.9 million parameters: a micro-batch takes milliseconds on one core.
  "llama-tiny": { vocabulary: byteVocabulary, width: 128, blocks: 4, heads: 4, hidden: 352, length: 64 },
  // 0.8 million parameters in 34 thin layers, which 16 ranks share evenly.
  "llama-deep": { vocabulary: byteVocabulary, width: 64, blocks: 16, heads: 2, hidden: 176, length: 64 },
  // 9.6 million parameters: for a small GPU.
  "llama-small": { vocabulary: byteVocabulary, width: 320, blocks: 8, heads: 5, hidden: 864, length: 128 },
  // JackFram/llama-160m on Hugging Face.
  "llama-160m": { vocabulary: 32_000, width: 768, blocks: 12, heads: 12, hidden: 3072, length: 2048, epsilon: 1e-6 },
  // TinyLlama (arXiv 2401.02385).
  "llama-1.1b": { vocabulary: 32_000, width: 2048, blocks: 22, heads: 32, kvHeads: 4, hidden: 5632, length: 2048 },
  // The first LLaMA.
  "llama-7b": { vocabulary: 32_000, width: 4096, blocks: 32, heads: 32, hidden: 11_008, length: 2048, epsilon: 1e-6 },
};

const rules: Rules<LlamaConfiguration> = {
  vocabulary: positive,
  width: positive,
  blocks: positive,
  heads: positive,
  kvHeads: optional(positive),
  hidden: positive,
  length: positive,
  epsilon: optional(real({ least: "above 0" })),
  theta: optional(real({ least: "above 0" })),
  tied: optional(flag),
};

/**
 * A LLaMa-like model. Attention and feed-forward halves are layers of their own, so that a pipeline can cut between
 * them. The projections that write to the residual stream start smaller by the square root of their number
 * (GPT-2's rule), which keeps the stream's variance independent of depth.
 *
 * @throws {UserError} On sizes that are no whole numbers of 1 or more, or do not fit each other.
 */
export function llama(name: string, configuration: LlamaConfiguration): Model {
  expectFields(`LLaMa "${name}"`, configuration, rules);
  const { vocabulary, width, blocks, heads, kvHeads = heads, hidden, length } = configuration;
  const { epsilon = 1e-5, theta = 10_000, tied = false } = configuration;
  const outputDeviation = 0.02 / Math.sqrt(2 * blocks);
  const normed = (name: string) => rmsNorm(`${name}.norm`, width, epsilon);
  const tokens = embedding("embedding", vocabulary, width);
  const head = linear("head", width, vocabulary, { transposed: tied });
  return {
    name,
    configuration: { vocabulary, width, blocks, heads, kvHeads, hidden, length, epsilon, theta },
    task: "next-token",
    takes: { inputs: [length], vocabulary, targets: length, classes: vocabulary },
    inputShape: (samples) => [2, samples * length],
    packInputs: packIds,
    layers: [
      tokens,
      ...Array.from({ length: blocks }, (_, block) => {
        const [attention, mlp] = [`blocks.${block}.attention`, `blocks.${block}.mlp`];
        return [
          preNorm(
            normed(attention),
            selfAttention(attention, { width, heads, kvHeads, length, theta, outputDeviation }),
          ),
          preNorm(normed(mlp), swigluMlp(mlp, { width, hidden, outputDeviation })),
        ];
      }).flat(),
      sequential([rmsNorm("norm", width, epsilon), head]),
    ],
    ...tied ? { tied: [[tokens.parameters[0], head.parameters[0]]] } : {},
  };
}
