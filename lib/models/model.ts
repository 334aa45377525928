/** What a model is: a chain of layers that can be cut into stages, with a loss at its end. */
import type { Layer } from "../layers/layer.ts";
import type { Parameter } from "../layers/parameter.ts";
import type { Loss, Targets } from "../losses/loss.ts";
import {
  anything,
  expectFields,
  expectValue,
  filled,
  having,
  listOf,
  optional,
  positive,
  type Rule,
  type Rules,
} from "../rules.ts";
import { sizeOf } from "../tensor.ts";
import { checkSideInputs, type SideInput } from "./side_inputs.ts";

/** What a model learns: the next token, tokens that were masked, the class of an image, or what its owner's batches hold. */
export type Task = "next-token" | "masked-token" | "image" | "own";

/** What a model takes of a batch, sample by sample: each batch is held against it before anything runs. */
export interface BatchShape {
  /** Axes of one sample's inputs: [tokens] of a sequence, or [height, width, 3] of an image. */
  readonly inputs: readonly number[];
  /**
   * Number of different tokens, for models whose inputs are token ids: whole numbers from 0 to one less, in a Uint32Array. Left
   * out where inputs are finite numbers (pixels), in a Float32Array.
   */
  readonly vocabulary?: number;
  /**
   * Side inputs by name: "lengths" is `Batch.lengths`, the others are in `Batch.sides`. "seed", u32 [2], is there without being
   * described: the batch's seed and the number of the micro-batch's first sample.
   */
  readonly sides?: Readonly<Record<string, SideInput>>;
}

/** A model: a description, from which each pipeline that it is given to makes parameters of its own. */
export interface Model {
  /** For tables, "llama-tiny". */
  readonly name: string;
  /** What the model is made of, for tables and JSON. */
  readonly configuration: Readonly<Record<string, number>>;
  /** What it learns, and so which data it takes. */
  readonly task: Task;
  /** What it takes of a batch besides targets, which are what its loss compares outputs with. */
  readonly takes: BatchShape;
  /** From the input to the outputs. A pipeline may cut between any two. */
  readonly layers: readonly Layer[];
  /** What is made of the outputs and the batch's targets on the last stage, and made small. */
  readonly loss: Loss;
  /**
   * Pairs of parameters that are one (an embedding and the output head), as two copies, each in a stage of its own perhaps:
   * they start alike, and the pipeline adds the gradients of both before it updates them.
   */
  readonly tied?: readonly (readonly [Parameter, Parameter])[];
  /** Shape of the first layer's input for so many samples. */
  inputShape(samples: number): readonly number[];
  /** A batch's inputs as the first layer takes them. */
  packInputs(inputs: Uint32Array | Float32Array): Uint32Array | Float32Array;
}

const modelRule: Rule = {
  right: "a model, as createModel() returns",
  accepts: (value) => having("inputShape", "packInputs").accepts(value) && filled.accepts((value as Model).layers),
};
const takesRule: Rule = {
  right: "a BatchShape: inputs, and vocabulary where inputs are token ids",
  accepts: (value) => typeof value === "object" && value !== null,
};
const shapeRules: Rules<BatchShape> = {
  inputs: listOf(positive),
  vocabulary: optional(positive),
  sides: anything, // by `checkSideInputs`
};
const lossRule: Rule = {
  ...having("targets", "forward", "backward"),
  right: "a Loss, as crossEntropy() and meanSquaredError() return",
};

/**
 * Refuses what is no model, such as the name of one, and a model of one's own that does not say what it takes.
 *
 * @throws {UserError} It begins with `owner`, to whom the model is given.
 */
export function expectModel(owner: string, model: Model): void {
  expectValue(`${owner}: model`, model, modelRule);
  expectValue(`${owner}: \`takes\` of ${model.name}`, model.takes, takesRule);
  expectFields(`\`takes\` of ${model.name}`, model.takes, shapeRules);
  expectValue(`${owner}: the loss of ${model.name}`, model.loss, lossRule);
  checkSideInputs(model.name, model.takes.sides, [
    ...model.layers.flatMap(({ reads }) => reads.sides ?? []),
    ...model.loss.sides ?? [],
  ]);
}

/** Shape of the outputs for so many samples; refuses a number that a layer cannot work on. */
export function outputShapeOf(model: Model, samples: number): readonly number[] {
  return model.layers.reduce((shape, layer) => layer.outputShape(shape), model.inputShape(samples));
}

/** What the outputs of so many samples are compared with. */
export function targetsOf(model: Model, samples: number): Targets {
  return model.loss.targets(outputShapeOf(model, samples));
}

/** All parameters, in order, tied ones both. */
export function parametersOf(model: Model): Parameter[] {
  return model.layers.flatMap((layer) => [...layer.parameters]);
}

/**
 * Number of scalars, frozen ones included, or of the parameters that `isCounted` says yes to (`isTrained` of `twobp/layers`, say); tied
 * ones count once.
 */
export function countParameters(model: Model, isCounted: (parameter: Parameter) => boolean = () => true): number {
  const copies = new Set(model.tied?.map(([, copy]) => copy));
  const counted = parametersOf(model).filter((parameter) => !copies.has(parameter) && isCounted(parameter));
  return counted.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
}

/** The same model of other layers, which have all of its tied parameters under their names. */
export function withLayers(model: Model, layers: readonly Layer[]): Model {
  if (!model.tied) return { ...model, layers };
  const made = new Map(parametersOf({ ...model, layers }).map((each) => [each.name, each]));
  return { ...model, layers, tied: model.tied.map(([a, b]) => [made.get(a.name)!, made.get(b.name)!] as const) };
}
