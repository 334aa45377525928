/** BERT, trained to fill in masked tokens (Devlin et al., arXiv 1810.04805): post-norm encoder blocks, GELU, learned positions. */
import { made } from "../recipes.ts";
import { UserError } from "../errors.ts";
import { selfAttention } from "../layers/attention.ts";
import { withDropout } from "../layers/dropout.ts";
import { gelu } from "../layers/gelu.ts";
import { layerNorm } from "../layers/layer_norm.ts";
import { linear } from "../layers/linear.ts";
import { positionedEmbedding } from "../layers/positioned_embedding.ts";
import { postNorm } from "../layers/residual.ts";
import { sequential } from "../layers/sequential.ts";
import { crossEntropy } from "../losses/cross_entropy.ts";
import { expectFields, optional, positive, real, type Rules, whole } from "../rules.ts";
import { byteVocabulary } from "../bytes.ts";
import { defineModel } from "./define_model.ts";
import type { Model } from "./model.ts";

/** Sizes of a BERT. */
export interface BertConfiguration {
  /** Number of different tokens. */
  readonly vocabulary: number;
  /** The token that stands where one is masked. */
  readonly mask: number;
  /** Features of a token. */
  readonly width: number;
  /** Pairs of attention and feed-forward layers. */
  readonly blocks: number;
  /** Attention heads; they share the width. */
  readonly heads: number;
  /** Width of the feed-forward layers' inside. */
  readonly hidden: number;
  /** Positions that the model has embeddings for. */
  readonly positions: number;
  /** Token types that the model has embeddings for; all tokens here are of the first. */
  readonly types: number;
  /** Tokens in a sequence, at most `positions`. */
  readonly length: number;
  /** Share of the features and attention probabilities that are dropped in training. */
  readonly dropout: number;
  /** What layer normalisation adds to the variance, Hugging Face's `layer_norm_eps`; 1e-12 by default. */
  readonly epsilon?: number;
}

const uncased = { vocabulary: 30_522, mask: 103, positions: 512, types: 2, length: 512, dropout: 0.1 };
const large = { ...uncased, width: 1024, blocks: 24, heads: 16, hidden: 4096 };

/**
 * BERTs by name: those of text as bytes can be trained as they are; the others are the public sizes (Turc et al.,
 * arXiv 1908.08962, for those smaller than base), with the uncased vocabulary. `paper-bert-large` is the BERT-Large of
 * the 2BP paper (arXiv 2405.18047), its sizes as read in public code of the same models, schedules and modes, whose owner could not be
 * established; what was not read is the public model's.
 */
export const bertConfigurations: Readonly<Record<string, BertConfiguration>> = {
  // 0.9 million parameters, for two cores. One token more than there are bytes: the mask.
  "bert-tiny": {
    vocabulary: byteVocabulary + 1,
    mask: byteVocabulary,
    width: 128,
    blocks: 4,
    heads: 4,
    hidden: 512,
    positions: 64,
    types: 2,
    length: 64,
    dropout: 0.1,
  },
  "bert-mini": { ...uncased, width: 256, blocks: 4, heads: 4, hidden: 1024 },
  "bert-small": { ...uncased, width: 512, blocks: 4, heads: 8, hidden: 2048 },
  "bert-medium": { ...uncased, width: 512, blocks: 8, heads: 8, hidden: 2048 },
  "bert-base": { ...uncased, width: 768, blocks: 12, heads: 12, hidden: 3072 },
  "bert-large": large,
  "paper-bert-large": large,
  // A quarter of its other sizes, in heads of 64 numbers as well, with a mask that is no byte: 21 million parameters.
  "paper-bert-large-4th": {
    ...large,
    vocabulary: 7632,
    mask: byteVocabulary,
    width: 256,
    heads: 4,
    hidden: 1024,
    positions: 128,
    length: 128,
  },
  // Its twin of the same depth and a 16th of the other sizes, in heads of 16 numbers, with a mask that is no byte: 1.3 million parameters.
  "paper-bert-large-tiny": {
    vocabulary: 1908,
    mask: byteVocabulary,
    width: 64,
    blocks: 24,
    heads: 4,
    hidden: 256,
    positions: 32,
    types: 2,
    length: 32,
    dropout: 0.1,
  },
};

const rules: Rules<BertConfiguration> = {
  vocabulary: positive,
  mask: whole(0),
  width: positive,
  blocks: positive,
  heads: positive,
  hidden: positive,
  positions: positive,
  types: positive,
  length: positive,
  dropout: real({ least: 0, below: 1 }),
  epsilon: optional(real({ least: "above 0" })),
};

/**
 * A BERT with its masked-token head, whose decoder is tied to the token table. Attention and feed-forward halves are layers
 * of their own, so that a pipeline can cut between them. All weights start with a deviation of 0.02, biases with 0.
 *
 * @throws {UserError} On sizes that are no whole numbers of 1 or more, a dropout that is no share below 1, or fields that do
 * not fit each other.
 */
export function bert(name: string, configuration: BertConfiguration): Model {
  expectFields(`BERT "${name}"`, configuration, rules);
  const { mask } = configuration;
  if (mask >= configuration.vocabulary) {
    throw new UserError(
      `BERT "${name}": mask ${mask} is no token of a vocabulary of ${configuration.vocabulary}; it must be below`,
    );
  }
  const { vocabulary, width, blocks, heads, hidden, length, dropout: rate, epsilon = 1e-12 } = configuration;
  const norm = (name: string) => layerNorm(name, width, epsilon);
  const dropping = { rate, length };
  const embeddings = positionedEmbedding("embeddings", configuration);
  const attention = { width, heads, length, outputDeviation: 0.02, causal: false, rotary: false, bias: true };
  const block = (name: string) => [
    postNorm(
      sequential(withDropout(
        `${name}.attention.dropout`,
        dropping,
        selfAttention(`${name}.attention`, { ...attention, padded: true, dropout: rate }),
      )),
      norm(`${name}.attention.norm`),
    ),
    postNorm(
      sequential(withDropout(
        `${name}.mlp.dropout`,
        dropping,
        linear(`${name}.mlp.up`, width, hidden, { bias: true }),
        gelu(),
        linear(`${name}.mlp.down`, hidden, width, { bias: true }),
      )),
      norm(`${name}.mlp.norm`),
    ),
  ];
  const decoder = linear("head.decoder", width, vocabulary, { bias: true, transposed: true });
  return made(
    "bert",
    [name, configuration],
    defineModel({
      name,
      configuration: { ...configuration, epsilon },
      task: "masked-token",
      inputs: { shape: [length], vocabulary },
      sides: { lengths: { type: "u32", shape: [], least: 1, most: length, otherwise: length } },
      loss: crossEntropy(),
      layers: [
        sequential(withDropout("embeddings.dropout", dropping, embeddings, norm("embeddings.norm"))),
        ...Array.from({ length: blocks }, (_, index) => block(`blocks.${index}`)).flat(),
        sequential([
          linear("head.dense", width, width, { bias: true }),
          gelu(),
          norm("head.norm"),
          decoder,
        ]),
      ],
      tied: [[embeddings.table, decoder.parameters[0]]],
    }),
  );
}
