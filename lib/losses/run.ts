/** Calls of a loss's two functions, with what it keeps between them. */
import type { Saved } from "../layers/saved.ts";
import type { Tensor } from "../tensor.ts";
import type { Loss } from "./loss.ts";

/** Runs {@link Loss.forward} of a micro-batch whose layers keep in `saved`: writes `sum` [1]. */
export function lossForward(loss: Loss, sum: Tensor, outputs: Tensor, targets: Tensor, saved: Saved): void {
  const own = saved.child("loss");
  own.run(() => loss.forward(sum, outputs, targets, own));
}

/** Runs {@link Loss.backward}: writes `doutputs`, and releases what the forward has kept. */
export function lossBackward(loss: Loss, doutputs: Tensor, scale: Tensor, saved: Saved): void {
  const own = saved.child("loss");
  own.run(() => loss.backward(doutputs, scale, own));
  saved.dropChild("loss");
}
