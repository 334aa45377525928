/** Which reference implementation a model belongs to. */
import type { StateBuffer } from "../layers/buffers.ts";
import { type Model, parametersOf } from "../models/model.ts";
import { bertFamily } from "./bert.ts";
import { llamaFamily } from "./llama.ts";
import { mambaFamily } from "./mamba.ts";
import { ownFamily } from "./own.ts";
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

/** Finds the reference implementation that has all the model's parameters and buffers, or the model's own names where none has. */
export function referenceModel(model: Model): ReferenceModel {
  const copies = new Set(model.tied?.map(([, copy]) => copy));
  const stored = [...parametersOf(model).filter((parameter) => !copies.has(parameter)), ...buffersOf(model)];
  const isTheirs = (family: Family) => stored.every((each) => family.references(each, model.configuration));
  const family = families.find(isTheirs) ?? ownFamily;
  return { family, references: stored.flatMap((each) => family.references(each, model.configuration)!) };
}
