/** What a model is: a chain of layers that can be cut into stages, with softmax cross-entropy at its end. */
import type { Layer } from "../layers/layer.ts";
import type { Parameter } from "../layers/parameter.ts";
import {
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

/** What a model learns: the next token, tokens that were masked, or the class of an image. */
export type Task = "next-token" | "masked-token" | "image";

/** What a model takes of a batch, sample by sample: each batch is held against it before anything runs. */
export interface BatchShape {
  /** Axes of one sample's inputs: [tokens] of a sequence, or [height, width, 3] of an image. */
  readonly inputs: readonly number[];
  /**
   * Number of different tokens, for models whose inputs are token ids: whole numbers from 0 to one less, in a Uint32Array. Left
   * out where inputs are finite numbers (pixels), in a Float32Array.
   */
  readonly vocabulary?: number;
  /** Targets of one sample: as many as it has tokens, or one. */
  readonly targets: number;
  /** Number of classes, the width of the logits: a target is one of 0 to one less, or `ignored`. */
  readonly classes: number;
  /** The most valid tokens of a sample, for models that read `Batch.lengths`; others refuse it. */
  readonly longest?: number;
}

/** A model: a description, from which each pipeline that it is given to makes parameters of its own. */
export interface Model {
  /** For tables, "llama-tiny". */
  readonly name: string;
  /** What the model is made of, for tables and JSON. */
  readonly configuration: Readonly<Record<string, number>>;
  /** What it learns, and so which data it takes. */
  readonly task: Task;
  /** What it takes of a batch. */
  readonly takes: BatchShape;
  /** From the input to logits [rows, classes]. A pipeline may cut between any two. */
  readonly layers: readonly Layer[];
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
  right: "a BatchShape: inputs, targets, classes, and vocabulary where inputs are token ids",
  accepts: (value) => typeof value === "object" && value !== null,
};
const shapeRules: Rules<BatchShape> = {
  inputs: listOf(positive),
  vocabulary: optional(positive),
  targets: positive,
  classes: positive,
  longest: optional(positive),
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
}

/** All parameters, in order, tied ones both. */
export function parametersOf(model: Model): Parameter[] {
  return model.layers.flatMap((layer) => [...layer.parameters]);
}

/** Number of trainable scalars; tied ones count once. */
export function countParameters(model: Model): number {
  const copies = new Set(model.tied?.map(([, copy]) => copy));
  return parametersOf(model).reduce((sum, parameter) => sum + (copies.has(parameter) ? 0 : sizeOf(parameter.shape)), 0);
}
