/**
 * Residual networks for images (He et al., arXiv 1512.03385) with the structure, the names and the initial weights of torchvision's,
 * whose blocks have their stride in the 3 x 3 convolution.
 */
import { made } from "../recipes.ts";
import { batchNorm } from "../layers/batch_norm.ts";
import { conv2d } from "../layers/conv2d.ts";
import type { BatchNormOptions } from "../ops/batch_norm.ts";
import type { Layer } from "../layers/layer.ts";
import { linear } from "../layers/linear.ts";
import { averagePool, maxPool } from "../layers/pool.ts";
import { sequential } from "../layers/sequential.ts";
import { shortcut } from "../layers/shortcut.ts";
import { crossEntropy } from "../losses/cross_entropy.ts";
import { expectFields, listOf, oneOf, optional, positive, real, type Rules } from "../rules.ts";
import { defineModel } from "./define_model.ts";
import type { Model } from "./model.ts";

/** Sizes of a residual network. */
export interface ResnetConfiguration {
  /** Number of residual blocks before each halving of the image, and after the last. */
  readonly blocks: readonly number[];
  /** Two 3 x 3 convolutions in a block, or a bottleneck: 1 x 1, 3 x 3, and 1 x 1 to four times the width. */
  readonly block: "basic" | "bottleneck";
  /** Channels of the first blocks' 3 x 3 convolutions; doubled with each halving of the image. */
  readonly width: number;
  /** What comes first: a 7 x 7 convolution and max pooling, which quarter the image, or a 3 x 3 one, which halves it. */
  readonly stem: "7x7" | "3x3";
  /** Height and width of the image, which has three colours. */
  readonly size: number;
  /** Number of classes. */
  readonly classes: number;
  /** What batch normalisation adds to the variance; 1e-5 by default, as in torchvision. */
  readonly epsilon?: number;
  /** How far running statistics move towards those of a micro-batch; 0.1 by default, as in torchvision. */
  readonly momentum?: number;
}

const rules: Rules<ResnetConfiguration> = {
  blocks: listOf(positive),
  block: oneOf(["basic", "bottleneck"]),
  width: positive,
  stem: oneOf(["7x7", "3x3"]),
  size: positive,
  classes: positive,
  epsilon: optional(real({ least: "above 0" })),
  momentum: optional({
    right: "a number from 0 to 1",
    accepts: (value) => real({ least: 0 }).accepts(value) && (value as number) <= 1,
  }),
};

/**
 * A residual network. Its input is images [samples, size, size, 3], its layers are the stem, the residual blocks, and the
 * classifier: a pipeline can cut between any two.
 *
 * @throws {UserError} On sizes that are no whole numbers of 1 or more, and on unknown blocks or stems.
 */
export function resnet(name: string, configuration: ResnetConfiguration): Model {
  expectFields(`ResNet "${name}"`, configuration, rules);
  const { blocks, block, width, stem, size, classes, epsilon = 1e-5, momentum = 0.1 } = configuration;
  const constants = { epsilon, momentum };
  const make = block === "basic" ? basic : bottleneck;
  const layers: Layer[] = [
    sequential([
      ...normalised("conv1", "bn1", 3, width, stem === "7x7" ? 7 : 3, 2, { ...constants, relu: true }),
      ...stem === "7x7" ? [maxPool({ size: 3, stride: 2, padding: 1 })] : [],
    ]),
  ];
  let inputs = width;
  for (const [part, count] of blocks.entries()) {
    for (let index = 0; index < count; index++) {
      const stride = part > 0 && index === 0 ? 2 : 1;
      const made = make(`layer${part + 1}.${index}`, inputs, width * 2 ** part, stride, constants);
      layers.push(made.layer);
      inputs = made.outputs;
    }
  }
  // PyTorch starts linear layers with uniform numbers; these are normal, with the same deviation, and no bias.
  const classifier = linear("fc", inputs, classes, { initial: { normal: 1 / Math.sqrt(3 * inputs) }, bias: true });
  layers.push(sequential([averagePool(), classifier]));
  return made(
    "resnet",
    [name, configuration],
    defineModel({
      name,
      configuration: { blocks: blocks.reduce((sum, count) => sum + count, 0), width, size, classes, ...constants },
      task: "image",
      inputs: { shape: [size, size, 3] },
      loss: crossEntropy(),
      layers,
    }),
  );
}

/** A convolution and the normalisation of its result, with a ReLU behind it perhaps. */
function normalised(
  conv: string,
  norm: string,
  inputs: number,
  outputs: number,
  size: number,
  stride: number,
  options: BatchNormOptions,
): Layer[] {
  return [conv2d(conv, inputs, outputs, { size, stride }), batchNorm(norm, outputs, options)];
}

function basic(name: string, inputs: number, width: number, stride: number, options: BatchNormOptions) {
  const body = sequential([
    ...normalised(`${name}.conv1`, `${name}.bn1`, inputs, width, 3, stride, { ...options, relu: true }),
    ...normalised(`${name}.conv2`, `${name}.bn2`, width, width, 3, 1, options),
  ]);
  return residual(name, body, inputs, width, stride, options);
}

function bottleneck(name: string, inputs: number, width: number, stride: number, options: BatchNormOptions) {
  const body = sequential([
    ...normalised(`${name}.conv1`, `${name}.bn1`, inputs, width, 1, 1, { ...options, relu: true }),
    ...normalised(`${name}.conv2`, `${name}.bn2`, width, width, 3, stride, { ...options, relu: true }),
    ...normalised(`${name}.conv3`, `${name}.bn3`, width, 4 * width, 1, 1, options),
  ]);
  return residual(name, body, inputs, 4 * width, stride, options);
}

function residual(
  name: string,
  body: Layer,
  inputs: number,
  outputs: number,
  stride: number,
  options: BatchNormOptions,
) {
  const projection = stride === 1 && inputs === outputs
    ? undefined
    : sequential(normalised(`${name}.downsample.0`, `${name}.downsample.1`, inputs, outputs, 1, stride, options));
  return { layer: shortcut(body, projection, { relu: true }), outputs };
}

const imagenet = { block: "bottleneck", width: 64, stem: "7x7", size: 224, classes: 1000 } as const;
const large = { ...imagenet, blocks: [3, 8, 36, 3] };

/**
 * The public sizes, and one that a processor trains. `paper-resnet-152` is the ResNet-152 of the 2BP paper (arXiv 2405.18047),
 * its sizes as read in public code of the same models, schedules and modes, whose owner could not be established; what was not read
 * is the public model's.
 */
export const resnetConfigurations: Readonly<Record<string, ResnetConfiguration>> = {
  // 0.9 million parameters: a sample takes about as long as a sequence of llama-tiny's.
  "resnet-tiny": { block: "bottleneck", blocks: [2, 2, 2], width: 32, stem: "3x3", size: 32, classes: 10 },
  "resnet-50": { ...imagenet, blocks: [3, 4, 6, 3] },
  "resnet-101": { ...imagenet, blocks: [3, 4, 23, 3] },
  "resnet-152": large,
  "paper-resnet-152": large,
  // A quarter of its channels, classes and, nearly, of the image: 3.8 million parameters.
  "paper-resnet-152-4th": { ...large, width: 16, size: 64, classes: 250 },
  // Its twin of the same depth: an eighth of the channels and classes, a seventh of the image; 1.0 million parameters.
  "paper-resnet-152-tiny": { ...large, width: 8, size: 32, classes: 125 },
};
