/** The squared error of rows. p1 only. */
import { kernel } from "../gpu/kernel.ts";
import type { Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowOperation, type RowVariant } from "./variants.ts";

const kernels = (entry: string) => ({
  plain: kernel("squared_error", entry),
  vec4: kernel("squared_error_vec4", entry),
  group: kernel("squared_error_group", entry),
});
const forward = kernels("forward"), backward = kernels("backward");

/** `losses = sum of (y - targets)^2` over each row. losses: [R]; y: [R, D] or with more axes; targets: f32, as many as y. */
export function squaredError(losses: Tensor, y: Tensor, targets: Tensor): void {
  expectShape("squaredError", "losses", losses, [rowsOf(y)]);
  expectShape("squaredError", "targets", targets, y.shape);
  squaredErrorRows.run([losses, y, targets]);
}

const squaredErrorRows = rowOperation<[losses: Tensor, y: Tensor, targets: Tensor]>({
  name: "squaredError",
  outputs: 1,
  rows: 1,
  record(variant, losses, y, targets) {
    y.device.dispatch(forward[variant], ...problemOf(variant, y, [losses, y, targets]));
  },
});

/**
 * The gradient of {@link squaredError} with respect to y, of all losses times `scale` [1] (one over the number of targets of a whole
 * batch, for a mean): `dy = 2 * scale * (y - targets)`. dy, y: [R, D] or with more axes; targets: f32, as many.
 */
export function squaredErrorBackward(dy: Tensor, y: Tensor, targets: Tensor, scale: Tensor): void {
  expectShape("squaredErrorBackward", "dy", dy, y.shape, "float");
  expectShape("squaredErrorBackward", "targets", targets, y.shape);
  expectShape("squaredErrorBackward", "scale", scale, [1]);
  squaredErrorBackwardRows.run([dy, y, targets, scale]);
}

const squaredErrorBackwardRows = rowOperation<[dy: Tensor, y: Tensor, targets: Tensor, scale: Tensor]>({
  name: "squaredErrorBackward",
  outputs: 1,
  rows: 0,
  record(variant, dy, y, targets, scale) {
    y.device.dispatch(backward[variant], ...problemOf(variant, y, [dy, y, targets, scale]));
  },
});

function problemOf(variant: RowVariant, y: Tensor, views: readonly Tensor[]) {
  const rows = rowsOf(y), width = widthOf(y);
  const parameters = { rows, width: variant === "vec4" ? width / 4 : width };
  return [parameters, views, lanes(rows, variant === "group" ? 1 : 64)] as const;
}
