/** The model that all train: a small GPT (Radford et al. 2019), pre-norm, learned positions, GELU, biases, head not tied. */
import type { Model } from "twobp";
import { crossEntropy } from "twobp/losses";
import { defineModel } from "twobp/models";
import { gelu, layerNorm, linear, positionedEmbedding, preNorm, selfAttention, sequential } from "twobp/layers";

/** Its sizes; `torch.py` has the same. */
export const gptSizes = {
  vocabulary: 256,
  width: 128,
  blocks: 2,
  heads: 4,
  hidden: 512,
  length: 64,
} as const;
/** Sequences in a step. */
export const batch = 8;
/** Of Adam, all others at their defaults (0.9, 0.999, 1e-8), without weight decay. */
export const learningRate = 1e-3;
/** Of the layer norms. */
export const epsilon = 1e-5;

/** The model made of this project's layers. */
export function gpt(): Model {
  const { vocabulary, width, blocks, heads, hidden, length } = gptSizes;
  const norm = (name: string) => layerNorm(name, width, epsilon);
  const attention = {
    width,
    heads,
    length,
    outputDeviation: 0.02,
    rotary: false,
    bias: true,
  };
  return defineModel({
    name: "gpt",
    configuration: { ...gptSizes },
    task: "next-token",
    inputs: { shape: [length], vocabulary },
    loss: crossEntropy(),
    layers: [
      positionedEmbedding("embedding", {
        vocabulary,
        width,
        positions: length,
        types: 1,
        length,
      }),
      ...Array.from({ length: blocks }, (_, index) => {
        const name = `blocks.${index}`;
        return [
          preNorm(
            norm(`${name}.attention.norm`),
            selfAttention(`${name}.attention`, attention),
          ),
          preNorm(
            norm(`${name}.mlp.norm`),
            sequential([
              linear(`${name}.mlp.up`, width, hidden, { bias: true }),
              gelu("tanh"),
              linear(`${name}.mlp.down`, hidden, width, { bias: true }),
            ]),
          ),
        ];
      }).flat(),
      sequential([norm("norm"), linear("head", width, vocabulary)]),
    ],
  });
}
