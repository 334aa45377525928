/** The gated activation of LLaMA's feed-forward layer. It has no parameters: p1 only. */
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";

const forward = { 1: kernel("swiglu", "forward"), 4: kernel("swiglu", "forward4") };
const backward = { 1: kernel("swiglu", "backward"), 4: kernel("swiglu", "backward4") };

/**
 * `out = silu(gate) * up` with `silu(g) = g * sigmoid(g)` (Shazeer, "GLU Variants Improve Transformer", 2020).
 * out: [R, H]; gateUp: [R, 2H], each row the gate and then the up projection.
 */
export function swiglu(out: Tensor, gateUp: Tensor): void {
  const { perLane, words, count } = plan("swiglu", out, gateUp);
  out.device.dispatch(forward[perLane], words, [out, gateUp], lanes(count, 256));
}

/** The gradient of {@link swiglu} with respect to gateUp. dGateUp, gateUp: [R, 2H]; dout: [R, H]. */
export function swigluBackward(dGateUp: Tensor, dout: Tensor, gateUp: Tensor): void {
  const { perLane, words, count } = plan("swigluBackward", dout, gateUp);
  expectShape("swigluBackward", "dGateUp", dGateUp, gateUp.shape);
  dout.device.dispatch(backward[perLane], words, [dGateUp, dout, gateUp], lanes(count, 256));
}

function plan(operation: string, out: Tensor, gateUp: Tensor) {
  const width = widthOf(out);
  expectShape(operation, "gateUp", gateUp, [rowsOf(out), 2 * width]);
  const perLane = width % 4 === 0 ? 4 : 1;
  const count = sizeOf(out.shape) / perLane;
  return { perLane, count, words: [count, width / perLane] } as const;
}
