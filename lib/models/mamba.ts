/** Mamba language models (Gu and Dao, arXiv 2312.00752): Mamba blocks alone, the output head tied to the embedding. */
import { made } from "../recipes.ts";
import { embedding } from "../layers/embedding.ts";
import { linear } from "../layers/linear.ts";
import { mambaMixer } from "../layers/mamba.ts";
import { preNorm } from "../layers/residual.ts";
import { rmsNorm } from "../layers/rms_norm.ts";
import { sequential } from "../layers/sequential.ts";
import { crossEntropy } from "../losses/cross_entropy.ts";
import { expectFields, optional, positive, real, type Rules } from "../rules.ts";
import { byteVocabulary } from "../bytes.ts";
import { defineModel } from "./define_model.ts";
import type { Model } from "./model.ts";

/** Sizes of a Mamba model. */
export interface MambaConfiguration {
  /** Number of different tokens. */
  readonly vocabulary: number;
  /** Features of the residual stream. */
  readonly width: number;
  /** Mamba blocks. */
  readonly blocks: number;
  /** Numbers in the state of a channel, a multiple of 4. */
  readonly state: number;
  /** Channels of the scan for each feature of the residual stream. */
  readonly expand: number;
  /** Rank of the step sizes' projection; a sixteenth of the width in the public models. */
  readonly rank: number;
  /** Tokens in a sequence. */
  readonly length: number;
  /** What RMSNorm adds to the mean square, Hugging Face's `layer_norm_epsilon`; 1e-5 by default. */
  readonly epsilon?: number;
}

const rules: Rules<MambaConfiguration> = {
  vocabulary: positive,
  width: positive,
  blocks: positive,
  state: positive,
  expand: positive,
  rank: positive,
  length: positive,
  epsilon: optional(real({ least: "above 0" })),
};

/**
 * A Mamba model. Blocks start as in the reference implementation, which draws the output projections as any other and
 * divides them by the square root of their number, for the variance of the residual stream not to grow with depth.
 *
 * @throws {UserError} On sizes that are no whole numbers of 1 or more, or a state that is no multiple of 4.
 */
export function mamba(name: string, configuration: MambaConfiguration): Model {
  expectFields(`Mamba "${name}"`, configuration, rules);
  const { vocabulary, width, blocks, state, expand, rank, length, epsilon = 1e-5 } = configuration;
  const outputBound = 1 / Math.sqrt(expand * width * blocks);
  const tokens = embedding("embedding", vocabulary, width);
  const head = linear("head", width, vocabulary, { transposed: true });
  return made(
    "mamba",
    [name, configuration],
    defineModel({
      name,
      configuration: { ...configuration, epsilon },
      task: "next-token",
      inputs: { shape: [length], vocabulary },
      loss: crossEntropy(),
      layers: [
        tokens,
        ...Array.from({ length: blocks }, (_, block) =>
          preNorm(
            rmsNorm(`blocks.${block}.norm`, width, epsilon),
            mambaMixer(`blocks.${block}.mixer`, { width, expand, state, rank, length, outputBound }),
          )),
        sequential([rmsNorm("norm", width, epsilon), head]),
      ],
      tied: [[tokens.parameters[0], head.parameters[0]]],
    }),
  );
}

const publicSizes = { vocabulary: 50_280, state: 16, expand: 2, length: 1024 };
const large = { ...publicSizes, width: 2048, blocks: 48, rank: 128 };

/**
 * Configurations by name: the public models (state-spaces/mamba-130m to -1.4b), and one for two processor cores on text as bytes.
 * `paper-mamba-1.4b` is the Mamba-1.4b of the 2BP paper (arXiv 2405.18047), its sizes as read in public code of the same models,
 * schedules and modes, whose owner could not be established; what was not read is the public model's.
 */
export const mambaConfigurations: Readonly<Record<string, MambaConfiguration>> = {
  // 0.5 million parameters.
  "mamba-tiny": { vocabulary: byteVocabulary, width: 128, blocks: 4, state: 16, expand: 2, rank: 8, length: 64 },
  "mamba-130m": { ...publicSizes, width: 768, blocks: 24, rank: 48 },
  "mamba-370m": { ...publicSizes, width: 1024, blocks: 48, rank: 64 },
  "mamba-790m": { ...publicSizes, width: 1536, blocks: 48, rank: 96 },
  "mamba-1.4b": large,
  "paper-mamba-1.4b": large,
  // Half and an 8th of its other sizes, with its whole state: 0.3 billion and 22 million parameters.
  "paper-mamba-1.4b-half": { ...large, vocabulary: 25_140, width: 1024, rank: 64, length: 512 },
  "paper-mamba-1.4b-8th": { ...large, vocabulary: 6285, width: 256, rank: 16, length: 128 },
  // Its twin of the same depth and a 32nd of the other sizes, with its whole state: 1.7 million parameters.
  "paper-mamba-1.4b-tiny": { vocabulary: 1572, width: 64, blocks: 48, state: 16, expand: 2, rank: 4, length: 32 },
};
