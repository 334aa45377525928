/** LLaMa-like decoder-only transformers (Touvron et al., arXiv 2302.13971): RMSNorm, rotary positions, SwiGLU. */
import { made } from "../recipes.ts";
import { UserError } from "../errors.ts";
import { selfAttention } from "../layers/attention.ts";
import { withDropout } from "../layers/dropout.ts";
import { embedding } from "../layers/embedding.ts";
import type { Layer } from "../layers/layer.ts";
import { linear } from "../layers/linear.ts";
import { preNorm } from "../layers/residual.ts";
import { rmsNorm } from "../layers/rms_norm.ts";
import { sequential } from "../layers/sequential.ts";
import { swigluMlp } from "../layers/swiglu_mlp.ts";
import { crossEntropy } from "../losses/cross_entropy.ts";
import type { RopeScaling } from "../ops/rope.ts";
import { anything, expectFields, flag, optional, positive, real, type Rules } from "../rules.ts";
import { byteVocabulary } from "../bytes.ts";
import { defineModel } from "./define_model.ts";
import type { Model } from "./model.ts";

/** Sizes of a LLaMa-like model. */
export interface LlamaConfiguration {
  /** Number of different tokens. */
  readonly vocabulary: number;
  /** Features of the residual stream. */
  readonly width: number;
  /** Pairs of attention and feed-forward layers. */
  readonly blocks: number;
  /** Attention heads. */
  readonly heads: number;
  /** Key and value heads, as many by default; fewer make grouped-query attention. */
  readonly kvHeads?: number;
  /** Features of a head, even, Hugging Face's `head_dim`; by default the heads share the width. */
  readonly headSize?: number;
  /** Width of the feed-forward layers' inside. */
  readonly hidden: number;
  /** Tokens in a sequence. */
  readonly length: number;
  /** What RMSNorm adds to the mean square, Hugging Face's `rms_norm_eps`; 1e-5 by default. */
  readonly epsilon?: number;
  /** Base of the rotary positions' frequencies, Hugging Face's `rope_theta`; 10,000 by default. */
  readonly ropeTheta?: number;
  /** How these are stretched for long contexts, as in Llama 3.1 and later; not at all by default. */
  readonly ropeScaling?: RopeScaling;
  /** Whether queries, keys and values have biases, as in Qwen 2; false by default. */
  readonly qkvBias?: boolean;
  /** Whether the output head is the embedding's table, as in Llama 3.2 1B and 3B; false by default. */
  readonly tied?: boolean;
  /**
   * Share of the features that are dropped in training: of the embedding, and of what each attention and feed-forward layer adds to
   * the residual stream; 0 by default, as in the public models.
   */
  readonly dropout?: number;
  /**
   * Whether attention keeps documents apart that share a sequence: batches then may bring the side input "starts", u32 [length], where in
   * the sequence the document of each token starts. Positions are turned by their distance, so that documents need not start at 0.
   * Scores are stored for it. False by default: a token sees all before it in its sequence.
   */
  readonly documents?: boolean;
}

// Inside is two thirds of 4 x width, rounded up to 256.
const paper = { vocabulary: 32_000, width: 4096, heads: 32, hidden: 11_008, length: 1024, dropout: 0.1 };

/**
 * LLaMa-like models by name. Those of text as bytes can be trained as they are. `paper-transformer` and `paper-transformer-16` are
 * the transformer of the 2BP paper (arXiv 2405.18047), their sizes as read in public code of the same models, schedules and modes,
 * whose owner could not be established; what was not read is LLaMa's.
 */
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
  "paper-transformer": { ...paper, blocks: 32 }, // as in an older script
  "paper-transformer-16": { ...paper, blocks: 16 }, // as in a newer one
  // Half and an 8th of its sizes, in heads of 128 numbers as well: 0.9 billion and 54 million parameters.
  "paper-transformer-half": {
    ...paper,
    vocabulary: 16_000,
    width: 2048,
    blocks: 16,
    heads: 16,
    hidden: 5504,
    length: 512,
  },
  "paper-transformer-8th": { ...paper, vocabulary: 4000, width: 512, blocks: 16, heads: 4, hidden: 1376, length: 128 },
  // Its twin with a 32nd of the other sizes, in heads of 32 numbers (a 32nd of a head's 128 would be 4): 3.4 million parameters.
  "paper-transformer-tiny": {
    vocabulary: 1000,
    width: 128,
    blocks: 16,
    heads: 4,
    hidden: 344,
    length: 32,
    dropout: 0.1,
  },
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
  headSize: optional(positive),
  ropeTheta: optional(real({ least: "above 0" })),
  ropeScaling: anything, // looked at below
  qkvBias: optional(flag),
  tied: optional(flag),
  dropout: optional(real({ least: 0, below: 1 })),
  documents: optional(flag),
};

const scalingRules: Rules<RopeScaling> = {
  factor: real({ least: 1 }),
  lowFrequencyFactor: real({ least: "above 0" }),
  highFrequencyFactor: real({ least: "above 0" }),
  originalLength: positive,
};

function checkScaling(owner: string, scaling: RopeScaling): void {
  expectFields(owner, scaling, scalingRules);
  const { lowFrequencyFactor: low, highFrequencyFactor: high } = scaling;
  if (high > low) return;
  throw new UserError(`${owner}: highFrequencyFactor ${high} must be above lowFrequencyFactor, which is ${low}`);
}

/**
 * A LLaMa-like model. Attention and feed-forward halves are layers of their own, so that a pipeline can cut between
 * them. The projections that write to the residual stream start smaller by the square root of their number
 * (GPT-2's rule), which keeps the stream's variance independent of depth.
 *
 * @throws {UserError} On sizes that are no whole numbers of 1 or more, or do not fit each other, constants that are not above 0,
 * and a dropout that is no share below 1.
 */
export function llama(name: string, configuration: LlamaConfiguration): Model {
  expectFields(`LLaMa "${name}"`, configuration, rules);
  const { vocabulary, width, blocks, heads, kvHeads = heads, headSize = width / heads, hidden, length } = configuration;
  const { epsilon = 1e-5, ropeTheta = 10_000, ropeScaling, qkvBias, tied = false, dropout: rate = 0 } = configuration;
  const { documents = false } = configuration;
  if (ropeScaling !== undefined) checkScaling(`LLaMa "${name}": ropeScaling`, ropeScaling);
  const outputDeviation = 0.02 / Math.sqrt(2 * blocks);
  const normed = (name: string) => rmsNorm(`${name}.norm`, width, epsilon);
  const dropped = (name: string, layer: Layer) =>
    rate === 0 ? layer : sequential(withDropout(`${name}.dropout`, { rate, length }, layer));
  const attending = {
    ...{ width, heads, kvHeads, headSize: configuration.headSize, length, outputDeviation },
    ...{ ropeTheta, ropeScaling, bias: qkvBias && "qkv" as const, documents },
  };
  const tokens = embedding("embedding", vocabulary, width);
  const head = linear("head", width, vocabulary, { transposed: tied });
  return made(
    "llama",
    [name, configuration],
    defineModel({
      name,
      configuration: {
        vocabulary,
        width,
        blocks,
        heads,
        kvHeads,
        headSize,
        hidden,
        length,
        epsilon,
        ropeTheta,
        ...Object.fromEntries(
          Object.entries(ropeScaling ?? {}).map(([field, value]) => [`ropeScaling.${field}`, value]),
        ),
        ...rate > 0 ? { dropout: rate } : {},
        ...documents ? { documents: 1 } : {},
      },
      task: "next-token",
      inputs: { shape: [length], vocabulary },
      ...documents
        ? { sides: { starts: { type: "u32", shape: [length], least: 0, most: length - 1, otherwise: 0 } } }
        : {},
      loss: crossEntropy(),
      layers: [
        dropped("embedding", tokens),
        ...Array.from({ length: blocks }, (_, block) => {
          const [attention, mlp] = [`blocks.${block}.attention`, `blocks.${block}.mlp`];
          return [
            preNorm(
              normed(attention),
              dropped(attention, selfAttention(attention, attending)),
            ),
            preNorm(normed(mlp), dropped(mlp, swigluMlp(mlp, { width, hidden, outputDeviation }))),
          ];
        }).flat(),
        sequential([rmsNorm("norm", width, epsilon), head]),
      ],
      ...tied ? { tied: [[tokens.parameters[0], head.parameters[0]]] } : {},
    }),
  );
}
