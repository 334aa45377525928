/** What is asked of a batch before anything runs: kernels take every id, class and length as it comes. */
import { UserError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { described, expectValue, positive, u32 } from "../rules.ts";
import { sizeOf } from "../tensor.ts";
import { type Batch, ignored } from "./data.ts";

const fields: readonly string[] = ["samples", "inputs", "targets", "lengths", "seed"] satisfies (keyof Batch)[];

/**
 * Compares a batch with what a model takes: sizes of all arrays, ids below the vocabulary or finite numbers, classes below the
 * model's or `ignored`, lengths, seed; and whether every layer can work on micro-batches of `batch.samples / microbatches`.
 * One pass over each array.
 *
 * @returns The targets that count, those that are not `ignored`; at least 1.
 * @throws {UserError} On the first thing that does not fit: where it is, and what would be right.
 */
export function checkBatch(model: Model, batch: Batch, microbatches: number): number {
  if (typeof batch !== "object" || batch === null || batch instanceof Promise) {
    throw new UserError(`A batch must be an object with samples, inputs and targets, not ${described(batch)}`);
  }
  const { name, takes } = model;
  const stray = Object.keys(batch).find((field) => !fields.includes(field));
  if (stray !== undefined) throw new UserError(`A batch has no ${described(stray)}; it has ${fields.join(", ")}`);
  const { samples, inputs, targets, lengths, seed = 0 } = batch;
  expectValue("The samples of a batch", samples, positive);
  expectValue("The seed of a batch", seed, u32);
  if (samples % microbatches !== 0) {
    throw new UserError(`A batch of ${samples} samples cannot be cut into ${microbatches} equal micro-batches`);
  }
  checkLayers(model, samples / microbatches);
  const count = samples * sizeOf(takes.inputs);
  const each = `${samples} samples of [${takes.inputs}]`;
  if (takes.vocabulary === undefined) {
    if (!(inputs instanceof Float32Array)) throw wrongArray(`The inputs of ${name}`, "Float32Array", inputs);
    expectLength("inputs", inputs, count, each);
    checkNumbers(inputs, takes.inputs);
  } else {
    if (!(inputs instanceof Uint32Array)) throw wrongArray(`The token ids of ${name}`, "Uint32Array", inputs);
    expectLength("inputs", inputs, count, each);
    checkIds(inputs, takes.inputs, takes.vocabulary, name);
  }
  if (lengths !== undefined) checkLengths(lengths, samples, model);
  if (!(targets instanceof Uint32Array)) throw wrongArray("Targets", "Uint32Array", targets);
  expectLength("targets", targets, samples * takes.targets, `${samples} samples with ${takes.targets} each`);
  const counted = checkTargets(targets, model);
  if (counted === 0) throw new UserError("All targets of the batch are ignored: it has no loss");
  return counted;
}

/** Follows the shapes through the layers, some of which refuse some, to logits for each target. */
function checkLayers(model: Model, samples: number): void {
  const { name, layers, takes } = model;
  const logits = layers.reduce((shape, layer) => layer.outputShape(shape), model.inputShape(samples));
  const rows = samples * takes.targets;
  if (logits.length !== 2 || logits[0] !== rows || logits[1] !== takes.classes) {
    throw new UserError(
      `${name} makes [${logits}] of ${samples} samples; with the targets and classes that its \`takes\` names, ` +
        `these must be logits of [${rows},${takes.classes}]`,
    );
  }
}

function expectLength(what: string, { length }: { length: number }, right: number, why: string): void {
  if (length !== right) throw new UserError(`The batch has ${length} ${what}; ${why} need ${right}`);
}

function wrongArray(what: string, right: string, value: unknown): UserError {
  return new UserError(`${what} must be a ${right}, not ${described(value)}`);
}

function checkNumbers(values: Float32Array, axes: readonly number[]): void {
  // NaN and the infinities are those with all bits of the exponent set; of words this takes half the time it takes of floats.
  const words = new Int32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < words.length; i++) {
    if ((words[i] & 0x7f80_0000) !== 0x7f80_0000) continue;
    throw new UserError(`${place(i, axes)} is ${values[i]}; inputs must be finite numbers`);
  }
}

function checkIds(ids: Uint32Array, axes: readonly number[], vocabulary: number, name: string): void {
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] < vocabulary) continue;
    throw new UserError(`${place(i, axes)} is token ${ids[i]}; the tokens of ${name} are 0 to ${vocabulary - 1}`);
  }
}

/** "Input [3, 17] of sample 5" for an element of the inputs: its place along each axis of a sample. */
function place(index: number, axes: readonly number[]): string {
  const of = sizeOf(axes);
  let rest = index % of;
  const at = axes.toReversed().map((length) => {
    const along = rest % length;
    rest = (rest - along) / length;
    return along;
  }).reverse();
  return `Input ${at.length === 1 ? at[0] : `[${at.join(", ")}]`} of sample ${Math.floor(index / of)}`;
}

/** Returns how many of the targets count. */
function checkTargets(targets: Uint32Array, { name, takes }: Model): number {
  const { classes } = takes;
  let counted = 0;
  for (let i = 0; i < targets.length; i++) {
    const target = targets[i];
    if (target < classes) counted++;
    else if (target !== ignored) {
      const [sample, at] = [Math.floor(i / takes.targets), i % takes.targets];
      const negative = target >= 2 ** 31 ? `, ${target - 2 ** 32} as a signed number` : "";
      throw new UserError(
        `Target ${at} of sample ${sample} is ${target}${negative}; the classes of ${name} are 0 to ${classes - 1}, ` +
          `and what is not to count is \`ignored\`, ${ignored}`,
      );
    }
  }
  return counted;
}

function checkLengths(lengths: unknown, samples: number, { name, takes: { longest } }: Model): void {
  if (longest === undefined) {
    throw new UserError(
      `${name} does not read lengths: leave them out, and mark the targets behind a sample's end as \`ignored\``,
    );
  }
  if (!(lengths instanceof Uint32Array)) throw wrongArray("Lengths", "Uint32Array", lengths);
  expectLength("lengths", lengths, samples, `${samples} samples`);
  for (let i = 0; i < samples; i++) {
    if (lengths[i] >= 1 && lengths[i] <= longest) continue;
    throw new UserError(`Sample ${i} has length ${lengths[i]}; the lengths of ${name} are 1 to ${longest}`);
  }
}
