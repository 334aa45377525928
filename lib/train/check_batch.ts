/** What is asked of a batch before anything runs: kernels take every id, class and length as it comes. */
import { UserError } from "../errors.ts";
import { type Model, targetsOf } from "../models/model.ts";
import { described, expectValue, positive, u32 } from "../rules.ts";
import { sizeOf } from "../tensor.ts";
import { expectFinite, expectLength, expectType, place } from "./check_arrays.ts";
import { checkSides } from "./check_sides.ts";
import { type Batch, ignored } from "./data.ts";

const fields: readonly string[] = [
  "samples",
  "inputs",
  "targets",
  "lengths",
  "sides",
  "seed",
] satisfies (keyof Batch)[];

/**
 * Compares a batch with what a model takes: sizes and types of all arrays, ids below the vocabulary or finite numbers, targets as
 * the loss asks, side inputs, seed; and whether every layer can work on micro-batches of `batch.samples / (microbatches * replicas)`.
 * One pass over each array.
 *
 * @returns The targets that count, those that are not to be ignored; at least 1.
 * @throws {UserError} On the first thing that does not fit: where it is, and what would be right.
 */
export function checkBatch(model: Model, batch: Batch, microbatches: number, replicas = 1): number {
  if (typeof batch !== "object" || batch === null || batch instanceof Promise) {
    throw new UserError(`A batch must be an object with samples, inputs and targets, not ${described(batch)}`);
  }
  const stray = Object.keys(batch).find((field) => !fields.includes(field));
  if (stray !== undefined) throw new UserError(`A batch has no ${described(stray)}; it has ${fields.join(", ")}`);
  const { samples, seed = 0 } = batch;
  expectValue("The samples of a batch", samples, positive);
  expectValue("The seed of a batch", seed, u32);
  const parts = microbatches * replicas;
  if (samples % parts !== 0) {
    const of = replicas > 1 ? `, ${microbatches} for each of ${replicas} replicas` : "";
    throw new UserError(`A batch of ${samples} samples cannot be cut into ${parts} equal micro-batches${of}`);
  }
  const counts = targetChecker(model, samples, parts);
  checkInputs(model, batch);
  checkSides(model, batch);
  const counted = counts(batch.targets);
  if (counted === 0) throw new UserError("All targets of the batch are ignored: it has no loss");
  return counted;
}

function checkInputs({ name, takes }: Model, { samples, inputs }: Batch): void {
  const { inputs: axes, vocabulary } = takes;
  if (vocabulary === undefined) expectType(`The inputs of ${name}`, inputs, "f32");
  else expectType(`The token ids of ${name}`, inputs, "u32");
  expectLength("inputs", inputs, samples * sizeOf(axes), `${samples} samples of [${axes}]`);
  const at = (index: number) => `${place("Input", index, axes)} is`;
  if (inputs instanceof Float32Array) {
    expectFinite(inputs, (index) => `${at(index)} ${inputs[index]}; inputs must be finite numbers`);
    return;
  }
  for (let i = 0; i < inputs.length; i++) {
    if (inputs[i] < vocabulary!) continue;
    throw new UserError(`${at(i)} token ${inputs[i]}; the tokens of ${name} are 0 to ${vocabulary! - 1}`);
  }
}

/**
 * Follows the shapes of a micro-batch through the layers, some of which refuse some, to the loss. What it returns counts the targets of
 * the batch that are not to be ignored.
 */
function targetChecker(model: Model, samples: number, microbatches: number): (targets: unknown) => number {
  const { name, loss } = model;
  const part = samples / microbatches;
  const { type, shape, below = 2 ** 32, ignored: none } = targetsOf(model, part);
  const each = sizeOf(shape) / part;
  if (!Number.isInteger(each)) {
    throw new UserError(
      `The ${loss.name} of ${name} asks for [${shape}] targets of ${part} samples, which is not as many for each: ` +
        "a sample's outputs must not depend on the others' number",
    );
  }
  return (targets) => {
    expectType("Targets", targets, type);
    expectLength("targets", targets, samples * each, `${samples} samples with ${each} each`);
    const at = (index: number) => `${place("Target", index, [each])} is ${targets[index]}`;
    if (targets instanceof Float32Array) {
      expectFinite(targets, (index) => `${at(index)}; targets must be finite numbers`);
      return targets.length;
    }
    let counted = 0;
    for (let i = 0; i < targets.length; i++) {
      const target = targets[i];
      if (target === none) continue;
      counted++;
      if (target < below) continue;
      const negative = target >= 2 ** 31 ? `, ${target - 2 ** 32} as a signed number` : "";
      const marked = none === undefined ? "" : none === ignored ? `\`ignored\`, ${none}` : `${none}`;
      throw new UserError(
        `${at(i)}${negative}; the classes of ${name} are 0 to ${below - 1}` +
          (marked && `, and what is not to count is ${marked}`),
      );
    }
    return counted;
  };
}
