/** The gated activation of LLaMA's feed-forward layer. It has no parameters: p1 only. */
import type { Tensor } from "../tensor.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowKernel, rowOperation } from "./variants.ts";

const forward = rowKernel("swiglu", "forward");
const backward = rowKernel("swiglu", "backward");

/**
 * `out = silu(gate) * up` with `silu(g) = g * sigmoid(g)` (Shazeer, "GLU Variants Improve Transformer", 2020).
 * out: [R, H]; gateUp: [R, 2H], each row the gate and then the up projection.
 */
export function swiglu(out: Tensor, gateUp: Tensor): void {
  const rows = rowsOf(out), width = widthOf(out);
  expectShape("swiglu", "gateUp", gateUp, [rows, 2 * width], "float");
  swigluRows.run([out, gateUp]);
}

const swigluRows = rowOperation<[out: Tensor, gateUp: Tensor]>({
  name: "swiglu",
  outputs: 1,
  rows: 0,
  record(variant, out, gateUp) {
    const rows = rowsOf(out), width = widthOf(out);
    const { kernel, perLane, grid } = forward(out.device, rows, width, variant);
    out.device.dispatch(kernel, { rows, width: width / perLane }, [out, gateUp], grid);
  },
});

/** The gradient of {@link swiglu} with respect to gateUp. dGateUp, gateUp: [R, 2H]; dout: [R, H]. */
export function swigluBackward(dGateUp: Tensor, dout: Tensor, gateUp: Tensor): void {
  const rows = rowsOf(dout), width = widthOf(dout);
  expectShape("swigluBackward", "gateUp", gateUp, [rows, 2 * width], "float");
  expectShape("swigluBackward", "dGateUp", dGateUp, gateUp.shape, "float");
  swigluBackwardRows.run([dGateUp, dout, gateUp]);
}

const swigluBackwardRows = rowOperation<[dGateUp: Tensor, dout: Tensor, gateUp: Tensor]>({
  name: "swigluBackward",
  outputs: 1,
  rows: 1,
  record(variant, dGateUp, dout, gateUp) {
    const rows = rowsOf(dout), width = widthOf(dout);
    const { kernel, perLane, grid } = backward(dout.device, rows, width, variant);
    dout.device.dispatch(kernel, { rows, width: width / perLane }, [dGateUp, dout, gateUp], grid);
  },
});
