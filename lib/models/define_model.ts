/** Models of one's own. */
import type { Layer } from "../layers/layer.ts";
import type { Loss } from "../losses/loss.ts";
import { packIds } from "../ops/embedding.ts";
import { anything, expectFields, filled, listOf, oneOf, optional, positive, string } from "../rules.ts";
import { expectModel, type Model, targetsOf, type Task } from "./model.ts";
import type { SideInputs } from "./side_inputs.ts";

/** The inputs of one sample. */
export interface Inputs {
  /**
   * Axes of a sample. Of numbers: [features], which the first layer is given as [samples, features]; [length, features], a
   * sequence, as [samples * length, features]; with three axes or more, images say, as [samples, ...shape]. Of token ids: [length].
   */
  readonly shape: readonly number[];
  /**
   * Number of different tokens, where inputs are token ids, for an embedding as first layer: u32 below it. Left out where they
   * are finite numbers, f32.
   */
  readonly vocabulary?: number;
}

/** What a model is made of. */
export interface ModelDefinition {
  /** For tables and messages. */
  readonly name: string;
  /** From the input to the outputs; a pipeline may cut between any two. */
  readonly layers: readonly Layer[];
  /** What is made small. */
  readonly loss: Loss;
  /** What a sample is. */
  readonly inputs: Inputs;
  /** What else a batch brings, by name, see {@link SideInput}; nothing by default. */
  readonly sides?: SideInputs;
  /** Pairs of parameters that are one, see {@link Model.tied}; none by default. */
  readonly tied?: Model["tied"];
  /** Sizes for tables and JSON; none by default. */
  readonly configuration?: Model["configuration"];
  /** What it learns, for what chooses data by it; "own" by default. */
  readonly task?: Task;
}

/**
 * A model of layers and a loss, ready for a pipeline.
 *
 * ```ts
 * import { createPipeline, openDevices, schedulePair, sgd } from "twobp";
 * import { gelu, linear } from "twobp/layers";
 * import { meanSquaredError } from "twobp/losses";
 * import { defineModel } from "twobp/models";
 *
 * const model = defineModel({
 *   name: "regression",
 *   inputs: { shape: [3] },
 *   layers: [linear("in", 3, 32, { bias: true }), gelu(), linear("out", 32, 1, { bias: true })],
 *   loss: meanSquaredError(),
 * });
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 0.1 }) });
 * const inputs = Float32Array.from({ length: 64 * 3 }, (_, i) => Math.sin(i));
 * const targets = Float32Array.from({ length: 64 }, (_, i) => inputs[3 * i] * inputs[3 * i + 1]);
 * const { split } = schedulePair("1f1b-1", { devices: 2 });
 * for (let i = 0; i < 5; i++) console.log((await pipeline.step(split, { samples: 64, inputs, targets })).loss);
 * pipeline.close();
 * set.close();
 * ```
 *
 * @throws {UserError} On what is no layer list, loss or shape; a side input that is read and not described; and outputs that the loss
 * does not take, or layers that do not fit one another.
 */
export function defineModel(definition: ModelDefinition): Model {
  expectFields("defineModel", definition, {
    name: string,
    layers: filled,
    loss: anything, // by `expectModel`
    inputs: anything,
    sides: anything,
    tied: anything, // by the pipeline
    configuration: anything,
    task: optional(oneOf(["next-token", "masked-token", "image", "own"] satisfies Task[])),
  });
  const { name, layers, loss, inputs, sides, tied, configuration = {}, task = "own" } = definition;
  expectFields(`The inputs of ${name}`, inputs, {
    shape: inputs?.vocabulary === undefined ? listOf(positive) : listOf(positive, 1),
    vocabulary: optional(positive),
  });
  const { shape, vocabulary } = inputs;
  const model: Model = {
    name,
    configuration,
    task,
    takes: { inputs: shape, ...vocabulary === undefined ? {} : { vocabulary }, ...sides ? { sides } : {} },
    layers,
    loss,
    ...tied ? { tied } : {},
    inputShape(samples) {
      if (vocabulary !== undefined) return [2, samples * shape[0]];
      return shape.length === 2 ? [samples * shape[0], shape[1]] : [samples, ...shape];
    },
    packInputs: (values) => vocabulary === undefined ? values : packIds(values),
  };
  expectModel("defineModel", model);
  targetsOf(model, 2); // two: normalisation over a batch refuses one
  return model;
}
