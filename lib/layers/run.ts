/** Calls of a layer's three functions: what each takes as scratch is released when it returns or throws. */
import type { Tensor } from "../tensor.ts";
import type { Layer, ResidualNorm } from "./layer.ts";
import { isTrained } from "./parameter.ts";
import type { Saved } from "./saved.ts";

/** Runs {@link Layer.forward}: writes `y`. */
export function forward(layer: Layer, y: Tensor, x: Tensor, saved: Saved): void {
  saved.run(() => layer.forward(y, x, saved));
}

/** Runs {@link Layer.backwardInput}: writes `dx`, where there is one. */
export function backwardInput(layer: Layer, dx: Tensor | undefined, dy: Tensor, saved: Saved): void;
/** Runs {@link ResidualNorm.backwardInput}: writes `dx`, where there is one, with `residual` added. */
export function backwardInput(
  layer: ResidualNorm,
  dx: Tensor | undefined,
  dy: Tensor,
  saved: Saved,
  residual: Tensor,
): void;
export function backwardInput(
  layer: Layer | ResidualNorm,
  dx: Tensor | undefined,
  dy: Tensor,
  saved: Saved,
  residual?: Tensor,
): void {
  saved.run(() => (layer as ResidualNorm).backwardInput(dx, dy, saved, residual));
}

/** Runs {@link Layer.recompute}, where there is something to recompute. */
export function recompute(layer: Layer, saved: Saved): void {
  saved.run(() => layer.recompute?.(saved));
}

/** Runs {@link Layer.backwardWeight} for one micro-batch or more: adds to the parameters' gradients, unless all are frozen. */
export function backwardWeight(layer: Layer, saved: readonly Saved[]): void {
  const { parameters } = layer;
  if (parameters.length > 0 && !parameters.some(isTrained)) return;
  saved[0].run(() => layer.backwardWeight?.(saved));
}
