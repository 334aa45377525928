/** Which reference implementation a model belongs to. */
import { UserError } from "../errors.ts";
import { type Model, parametersOf } from "../models/model.ts";
import { bertFamily } from "./bert.ts";
import { llamaFamily } from "./llama.ts";
import { mambaFamily } from "./mamba.ts";
import type { Family, Reference } from "./reference.ts";
import { resnetFamily } from "./resnet.ts";

const families: readonly Family[] = [llamaFamily, bertFamily, mambaFamily, resnetFamily];

/** A model's tensors by their names in the reference implementation; of tied parameters only the original has one. */
export interface ReferenceModel {
  readonly family: Family;
  readonly references: readonly Reference[];
}

/**
 * Finds the reference implementation that has all the model's parameters.
 *
 * @throws {UserError} When none has, because the model is not one of ours.
 */
export function referenceModel(model: Model): ReferenceModel {
  const copies = new Set(model.tied?.map(([, copy]) => copy));
  const parameters = parametersOf(model).filter((parameter) => !copies.has(parameter));
  for (const family of families) {
    const references = parameters.map((parameter) => family.references(parameter, model.configuration));
    if (references.every((each) => each !== undefined)) return { family, references: references.flat() };
  }
  throw new UserError(
    `The weights of ${model.name} have no names to be stored under: ` +
      `it is none of ${families.map(({ title }) => title).join(", ")}`,
  );
}
