/** Models with low-rank adapters beside their projections. */
import { UserError } from "../errors.ts";
import { frozenPart } from "../layers/frozen.ts";
import type { Layer, ProjectionPart } from "../layers/layer.ts";
import { lora } from "../layers/lora.ts";
import { matches, matchRule } from "../matching.ts";
import { expectFields, optional, positive, real } from "../rules.ts";
import { expectModel, type Model, parametersOf, withLayers } from "./model.ts";

/** Which projections of a model are adapted, and how. */
export interface LoraModelOptions {
  /** Columns of A and rows of B, r. */
  readonly rank: number;
  /** What A B is multiplied with, times the rank; the rank by default, which makes the factor 1. */
  readonly alpha?: number;
  /**
   * Which projections have an adapter, by name: an expression that is found in it, or a function that says yes. A block of LLaMa has
   * attention.q, .k, .v and .out, mlp.gate, .up and .down; a message lists the names where none is meant.
   */
  readonly targets: RegExp | ((projection: string) => boolean);
  /** Which parameters of the model itself are trained as well, by name; none by default. */
  readonly trained?: RegExp | ((parameter: string) => boolean);
}

/**
 * The same model with an adapter of its own beside each projection that is a target, see `lora`: all else is frozen, but for what is
 * `trained`. It starts with the numbers of the model without adapters.
 *
 * ```ts
 * import { isTrained } from "twobp/layers";
 * import { countParameters, createModel, loraModel } from "twobp/models";
 *
 * const model = loraModel(createModel("llama-7b"), { rank: 8, alpha: 16, targets: /attention\.[qv]$/ });
 * console.log(countParameters(model, isTrained)); // 4194304
 * ```
 *
 * Projections are found in layers, and in those that they are made of where these say how ({@link Layer.withParts}). `loadWeights` takes a
 * checkpoint of the model without adapters; `saveAdapters` and `loadAdapters` are for these alone, under the names of Hugging Face's
 * PEFT.
 *
 * @throws {UserError} When no projection is a target, `trained` means no parameter, or the model has adapters already.
 */
export function loraModel(model: Model, options: LoraModelOptions): Model {
  expectModel("loraModel", model);
  expectFields("loraModel", options, {
    rank: positive,
    alpha: optional(real({ least: "above 0" })),
    targets: { ...matchRule, right: "a RegExp or a function of a projection's name" },
    trained: optional(matchRule),
  });
  const { rank, alpha = rank, targets, trained } = options;
  const base = parametersOf(model);
  if (base.some(({ adapts }) => adapts)) {
    throw new UserError(`loraModel: ${model.name} has adapters; give the model without, and all targets at once`);
  }
  const copies = new Map(model.tied?.map(([original, copy]) => [copy.name, original.name]));
  const isTrained = (name: string) => trained !== undefined && matches(trained, copies.get(name) ?? name);
  if (trained && !base.some(({ name }) => isTrained(name))) {
    throw new UserError(
      `loraModel: trained means no parameter of ${model.name}; it has ${
        base.slice(0, 3).map(({ name }) => name).join(", ")
      } ...`,
    );
  }
  const isTarget = (projection: string) => matches(targets, projection);
  const found: string[] = [];
  const adapted = <Kind extends Layer>(layer: Kind): Kind => {
    const { projects, withParts } = layer;
    if (projects) {
      found.push(...projects.parts.map(({ name }) => name));
      const isMeant = projects.parts.some(({ name }: ProjectionPart) => isTarget(name));
      return isMeant ? lora(layer, { rank, alpha, targets: isTarget }) as Layer as Kind : layer;
    }
    return withParts ? withParts(adapted) as Layer as Kind : layer;
  };
  const layers = model.layers.map((layer) => adapted(frozenPart(layer, (name) => !isTrained(name))));
  if (!found.some(isTarget)) {
    throw new UserError(
      `loraModel: no projection of ${model.name} is a target; it has ${found.slice(0, 8).join(", ") || "none"}` +
        (found.length > 8 ? ` and ${found.length - 8} more` : ""),
    );
  }
  const made = withLayers(model, layers), name = `${model.name}+lora`;
  const adapters = new Set(parametersOf(made).map(({ adapts }) => adapts?.projection));
  const lost = found.find((each) => isTarget(each) && !adapters.has(each));
  if (lost !== undefined) {
    throw new UserError(
      `loraModel: ${lost} cannot have an adapter: what a layer around it says with \`withParts\` makes it as it was`,
    );
  }
  return { ...made, name, configuration: { ...model.configuration, loraRank: rank, loraAlpha: alpha } };
}
