/** Models of which some parameters are not trained. */
import { frozenPart } from "../layers/frozen.ts";
import { UserError } from "../errors.ts";
import { callback, expectValue } from "../rules.ts";
import { expectModel, type Model, parametersOf, withLayers } from "./model.ts";

/**
 * The same model with those parameters frozen whose name `isFrozen` says yes to: see `frozen`, which does it to a layer. A tied copy is
 * frozen with its original, whatever its own name.
 *
 * ```ts
 * import { createModel, frozenModel } from "twobp/models";
 *
 * const head = frozenModel(createModel("bert-tiny"), (name) => name.startsWith("blocks.")); // embeddings and head are trained
 * console.log(head.layers.filter(({ parameters }) => parameters.every(({ trainable }) => trainable === false)).length); // 8
 * ```
 *
 * @throws {UserError} When the model has no parameter of such a name, or a layer of one's own cannot be frozen in part.
 */
export function frozenModel(model: Model, isFrozen: (name: string) => boolean): Model {
  expectModel("frozenModel", model);
  expectValue("frozenModel: isFrozen", isFrozen, callback);
  const originals = new Map(model.tied?.map(([original, copy]) => [copy.name, original.name]));
  const isMeant = (name: string) => isFrozen(originals.get(name) ?? name);
  const names = parametersOf(model).map(({ name }) => name);
  if (!names.some(isMeant)) {
    throw new UserError(
      `frozenModel: no parameter of ${model.name} is meant; it has ${names.slice(0, 3).join(", ")} ...`,
    );
  }
  return withLayers(model, model.layers.map((layer) => frozenPart(layer, isMeant)));
}
