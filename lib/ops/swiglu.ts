/** The gated activation of LLaMA's feed-forward layer. It has no parameters: p1 only. */
import type { Tensor } from "../tensor.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowKernel } from "./variants.ts";

const forward = rowKernel("swiglu", "forward");
const backward = rowKernel("swiglu", "backward");

/**
 * `out = silu(gate) * up` with `silu(g) = g * sigmoid(g)` (Shazeer, "GLU Variants Improve Transformer", 2020).
 * out: [R, H]; gateUp: [R, 2H], each row the gate and then the up projection.
 */
export function swiglu(out: Tensor, gateUp: Tensor): void {
  const rows = rowsOf(out), width = widthOf(out);
  expectShape("swiglu", "gateUp", gateUp, [rows, 2 * width], "float");
  const { kernel, perLane, grid } = forward(out.device, rows, width);
  out.device.dispatch(kernel, [rows, width / perLane], [out, gateUp], grid);
}

/** The gradient of {@link swiglu} with respect to gateUp. dGateUp, gateUp: [R, 2H]; dout: [R, H]. */
export function swigluBackward(dGateUp: Tensor, dout: Tensor, gateUp: Tensor): void {
  const rows = rowsOf(dout), width = widthOf(dout);
  expectShape("swigluBackward", "gateUp", gateUp, [rows, 2 * width], "float");
  expectShape("swigluBackward", "dGateUp", dGateUp, gateUp.shape, "float");
  const { kernel, perLane, grid } = backward(dout.device, rows, width);
  dout.device.dispatch(kernel, [rows, width / perLane], [dGateUp, dout, gateUp], grid);
}
