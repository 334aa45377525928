/** Which reference implementation a model belongs to. */
import type { StateBuffer } from "../layers/buffers.ts";
import type { Adapts, Parameter } from "../layers/parameter.ts";
import { type Model, parametersOf } from "../models/model.ts";
import { bertFamily } from "./bert.ts";
import { llamaFamily } from "./llama.ts";
import { mambaFamily } from "./mamba.ts";
import { ownFamily } from "./own.ts";
import { type Family, type Reference, transposed } from "./reference.ts";
import { resnetFamily } from "./resnet.ts";

/** The families of models that have a reference implementation. */
export const families: readonly Family[] = [llamaFamily, bertFamily, mambaFamily, resnetFamily];

/** A model's tensors by their names in the reference implementation; of tied parameters only the original has one. */
export interface ReferenceModel {
  /** Whose names they are. */
  readonly family: Family;
  /** Where each tensor lies in the parameters and buffers. */
  readonly references: readonly Reference[];
  /** Where each matrix of an adapter lies in its parameter, under the name that PEFT has for it; none where there are no adapters. */
  readonly adapters: readonly Reference[];
}

/** The running statistics and other state that is stored with a model's parameters. */
export function buffersOf(model: Model): StateBuffer[] {
  return model.layers.flatMap((layer) => [...layer.buffers ?? []]);
}

/** Finds the reference implementation that has all the model's parameters and buffers, or the model's own names where none has. */
export function referenceModel(model: Model): ReferenceModel {
  const copies = new Set(model.tied?.map(([, copy]) => copy));
  const parameters = parametersOf(model);
  const stored = [...parameters.filter((each) => !each.adapts && !copies.has(each)), ...buffersOf(model)];
  const isTheirs = (family: Family) => stored.every((each) => family.references(each, model.configuration));
  const family = families.find(isTheirs) ?? ownFamily;
  return {
    family,
    references: stored.flatMap((each) => family.references(each, model.configuration)!),
    adapters: parameters.filter(({ adapts }) => adapts).flatMap((each) => {
      const { factor, ...adapts } = each.adapts!;
      const weight = parameters.find(({ name }) => name === adapts.weight);
      return transposed(`base_model.model.${moduleOf(family, model, adapts, weight)}.lora_${factor}.weight`, each);
    }),
  };
}

/**
 * The module that an adapter is beside in the reference implementation, which may have projections apart that are side by side in one weight
 * here: found by their columns. The projection's own name where there is no such module.
 */
function moduleOf(
  family: Family,
  { configuration }: Model,
  { projection, start, transposed }: Omit<Adapts, "factor">,
  weight: Parameter | undefined,
): string {
  const theirs = weight && family !== ownFamily ? family.references(weight, configuration) ?? [] : [];
  const module = theirs.length === 1 || transposed ? theirs[0] : theirs.find(({ offset }) => offset === start);
  return module?.name.replace(/\.weight$/, "") ?? projection;
}
