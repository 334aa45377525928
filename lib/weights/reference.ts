/** How the tensors of reference implementations lie in our parameters. */
import type { Parameter } from "../layers/parameter.ts";
import type { Model } from "../models/model.ts";
import { sizeOf } from "../tensor.ts";
import type { Setting } from "./said.ts";

/**
 * One tensor of a reference implementation, which is a strided part of one of our parameters: element (i, j, ...) is the
 * parameter's element offset + i * strides[0] + j * strides[1] + ...
 */
export interface Reference {
  /** Its name there. */
  readonly name: string;
  /** Its shape there. */
  readonly shape: readonly number[];
  /** Name of our parameter. */
  readonly parameter: string;
  /** Where its first element is in the parameter. */
  readonly offset: number;
  /** Steps in the parameter along each of its axes. */
  readonly strides: readonly number[];
}

/** A parameter or a buffer. */
export type Shaped = Pick<Parameter, "name" | "shape">;

/** A reference implementation of a family of models. */
export interface Family {
  /** For messages, "LLaMa". */
  readonly title: string;
  /**
   * The reference's tensors that lie in a parameter of a model with this configuration, all of it together; undefined where the
   * family has no such parameter.
   */
  references(parameter: Shaped, configuration: Readonly<Record<string, number>>): readonly Reference[] | undefined;
  /**
   * The name that `references` uses for a tensor found in a checkpoint, which may have an older name, or be the second copy of
   * one that is `tied` in the model; undefined for one that checkpoints have and our model needs not.
   */
  rename(name: string, tied: boolean): string | undefined;
  /** The `model_type`s under which Hugging Face has such models; none where it has them otherwise, or not at all. */
  readonly types: readonly string[];
  /** What a `config.json` of such a type can say; that of the first type by default. */
  settings(type?: string): readonly Setting[];
  /** What a model has of these settings, by field. */
  values(model: Model): Readonly<Record<string, unknown>>;
  /**
   * The model that a `config.json` describes; where there are {@link Family.types}.
   *
   * @throws {UserError} When its settings do not fit one another.
   */
  make?(name: string, described: Described): Model;
}

/** What a `config.json` says, read. */
export interface Described {
  /** Its `model_type`, one of {@link Family.types}. */
  readonly type: string;
  /** The settings that have a field, by that; undefined where nothing is said and nothing stands for it. */
  readonly values: Readonly<Record<string, unknown>>;
  /** Tokens in a sequence. */
  readonly length: number;
  /** The token that stands where one is masked, if it was said. */
  readonly mask: number | undefined;
}

/** The whole parameter in its own order; `shape` where the reference has other axes of the same elements. */
export function same(name: string, parameter: Shaped, shape: readonly number[] = parameter.shape): Reference[] {
  const strides = shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
  return [{ name, shape, parameter: parameter.name, offset: 0, strides }];
}

/** A weight [inputs, outputs], which the reference has as [outputs, inputs]. */
export function transposed(name: string, parameter: Shaped): Reference[] {
  return columns([name], parameter, [parameter.shape[1]]);
}

/**
 * Projections side by side in one weight [inputs, outputs] or bias [outputs], which the reference has apart, each weight as
 * [outputs, inputs]. `widths` are their numbers of outputs; all the same by default.
 */
export function columns(
  names: readonly string[],
  { name: parameter, shape }: Shaped,
  widths: readonly number[] = names.map(() => shape[shape.length - 1] / names.length),
): Reference[] {
  const outputs = shape[shape.length - 1];
  let offset = 0;
  return names.map((name, index) => {
    const width = widths[index];
    const reference = shape.length === 1
      ? { name, shape: [width], parameter, offset, strides: [1] }
      : { name, shape: [width, shape[0]], parameter, offset, strides: [1, outputs] };
    offset += width;
    return reference;
  });
}

/** The reference's tensor out of our parameter's values, or its gradient out of our gradient. */
export function toReference(reference: Reference, ours: Float32Array): Float32Array<ArrayBuffer> {
  const theirs = new Float32Array(sizeOf(reference.shape));
  walk(reference, (at, start, stride, count) => {
    for (let i = 0; i < count; i++) theirs[at + i] = ours[start + i * stride];
  });
  return theirs;
}

/** Puts the reference's tensor where it belongs in our parameter's values. */
export function fromReference(reference: Reference, theirs: Float32Array, ours: Float32Array): void {
  walk(reference, (at, start, stride, count) => {
    for (let i = 0; i < count; i++) ours[start + i * stride] = theirs[at + i];
  });
}

/**
 * Visits stretches of the last axis: `count` elements from `at` on there, from `start` on in steps of `stride` here. They are
 * short where the steps are long: neighbouring rows then find what they read in the cache, which a 4096 x 4096 weight takes
 * a sixth of the time for.
 */
function walk(
  { shape, strides, offset }: Reference,
  visit: (at: number, start: number, stride: number, count: number) => void,
): void {
  const last = shape.length - 1;
  const [length, stride] = last < 0 ? [1, 1] : [shape[last], strides[last]];
  const stretch = stride === 1 ? length : 32;
  for (let first = 0; first < length; first += stretch) {
    const count = Math.min(stretch, length - first);
    let at = first;
    const descend = (axis: number, start: number) => {
      if (axis >= last) {
        visit(at, start, stride, count);
        at += length;
      } else for (let i = 0; i < shape[axis]; i++) descend(axis + 1, start + i * strides[axis]);
    };
    descend(0, offset + first * stride);
  }
}
