/** Which reference implementation a model belongs to. */
import { UserError } from "../errors.ts";
import type { StateBuffer } from "../layers/buffers.ts";
import { type Model, parametersOf } from "../models/model.ts";
import { bertFamily } from "./bert.ts";
import { llamaFamily } from "./llama.ts";
import { mambaFamily } from "./mamba.ts";
import type { Family, Reference } from "./reference.ts";
import { resnetFamily } from "./resnet.ts";

/** The families of models that have a reference implementation. */
export const families: readonly Family[] = [llamaFamily, bertFamily, mambaFamily, resnetFamily];

/** A model's tensors by their names in the reference implementation; of tied parameters only the original has one. */
export interface ReferenceModel {
  /** Whose names they are. */
  readonly family: Family;
  /** Where each tensor lies in the parameters and buffers. */
  readonly references: readonly Reference[];
}

/** The running statistics and other state that is stored with a model's parameters. */
export function buffersOf(model: Model): StateBuffer[] {
  return model.layers.flatMap((layer) => [...layer.buffers ?? []]);
}

/**
 * Finds the reference implementation that has all the model's parameters and buffers.
 *
 * @throws {UserError} When none has, because the model is not one of ours.
 */
export function referenceModel(model: Model): ReferenceModel {
  const copies = new Set(model.tied?.map(([, copy]) => copy));
  const stored = [...parametersOf(model).filter((parameter) => !copies.has(parameter)), ...buffersOf(model)];
  for (const family of families) {
    const references = stored.map((each) => family.references(each, model.configuration));
    if (references.every((each) => each !== undefined)) return { family, references: references.flat() };
  }
  throw new UserError(
    `The weights of ${model.name} have no names to be stored under: ` +
      `it is none of ${families.map(({ title }) => title).join(", ")}`,
  );
}
