/** Layers whose parameters, or some of them, are not trained. */
import { UserError } from "../errors.ts";
import { callback, expectValue, having } from "../rules.ts";
import { quoted } from "../text.ts";
import { createGroup } from "./group.ts";
import type { Layer, ResidualNorm } from "./layer.ts";
import { isTrained, type Parameter } from "./parameter.ts";
import type { Saved } from "./saved.ts";

/**
 * The same layer with its parameters frozen, all of them, or those whose name `isFrozen` says yes to: they have no gradient and no
 * moments, and stay what they are. The gradient still passes through to the layer before. Nothing is kept for their W, none is
 * made, and a stage that has no others has no W. In mixed precision they are held in f16 alone.
 *
 * ```ts
 * import { frozen, gelu, linear, sequential } from "twobp/layers";
 *
 * const base = frozen(sequential([linear("a", 8, 32, { bias: true }), gelu(), linear("b", 32, 8)]));
 * const biases = frozen(linear("c", 8, 8, { bias: true }), (name) => !name.endsWith(".bias"));
 * console.log(base.flops([4, 8]).w, biases.flops([4, 8]).w); // 0, and 32 of the bias
 * ```
 *
 * @throws {UserError} When none of its parameters has such a name, or of a layer of one's own without {@link Layer.freeze} some have
 * and others have not.
 */
export function frozen<Kind extends Layer>(layer: Kind, isFrozen: (name: string) => boolean = () => true): Kind {
  expectValue("frozen: the layer", layer, having("outputShape", "forward", "backwardInput"));
  expectValue("frozen: isFrozen", isFrozen, callback);
  const names = layer.parameters.map(({ name }) => name);
  if (!names.some((name) => isFrozen(name))) {
    throw new UserError(`frozen: no parameter of the layer is meant; it has ${names.join(", ") || "none"}`);
  }
  return frozenPart(layer, isFrozen);
}

/** {@link frozen}, of a part of what is frozen: it may have none of the parameters that are meant. */
export function frozenPart<Kind extends Layer>(layer: Kind, isFrozen: (name: string) => boolean): Kind {
  const trained = layer.parameters.filter(isTrained), meant = trained.filter(({ name }) => isFrozen(name));
  if (meant.length === 0) return layer;
  if (layer.freeze) {
    const made = layer.freeze(isFrozen) as Kind;
    const left = made.parameters.find((each) => isTrained(each) && isFrozen(each.name));
    if (!left) return made;
    throw new UserError(
      `${quoted(left.name)} cannot be frozen: what its layer says with \`freeze\` or \`withParts\` makes it as it was`,
    );
  }
  if (meant.length === trained.length) return still(layer);
  const other = trained.find((each) => !meant.includes(each))!;
  throw new UserError(
    `A layer cannot be frozen in ${quoted(meant[0].name)} and not in ${
      quoted(other.name)
    }: one's own layers are frozen as a ` +
      "whole, unless they say with `freeze` how they are made in part",
  );
}

/**
 * Any layer without its W: what it keeps is released after its I. Between F and I it holds what it always holds, and its slots lie
 * by themselves, since no W will read several.
 */
function still<Kind extends Layer>(layer: Kind): Kind {
  const own = new Map<Parameter, Parameter>(layer.parameters.map((each) => [each, { ...each, trainable: false }]));
  const alone = ({ group: { placed } }: Saved) =>
    createGroup({ ...placed, parameter: (each) => placed.parameter(own.get(each) ?? each) }, 1);
  const part = (saved: Saved) => saved.child("layer", { group: alone(saved), unread: saved.unread });
  return {
    ...layer,
    parameters: [...own.values()],
    reads: { nothingElse: layer.reads.nothingElse, sides: layer.reads.sides },
    flops(shape) {
      const { f, i, recompute } = layer.flops(shape);
      return { f, i, w: 0, ...recompute === undefined ? {} : { recompute } };
    },
    forward(y, x, saved) {
      const store = part(saved);
      store.run(() => layer.forward(y, x, store));
    },
    backwardInput(dx, dy, saved, residual) {
      const store = part(saved);
      if (dx) store.run(() => (layer as Layer as ResidualNorm).backwardInput(dx, dy, store, residual));
      saved.dropChild("layer");
    },
    backwardWeight: undefined,
    withParts: undefined, // which would make it anew as it was
  } satisfies Omit<ResidualNorm, "addsResidual"> as Layer as Kind;
}
