/** Gated feed-forward network (SwiGLU, Shazeer, arXiv 2002.05202), pre-norm and residual: y = x + down(silu(gate) * up). */
import { add } from "../ops/elementwise.ts";
import { swiglu, swigluBackward } from "../ops/swiglu.ts";
import { empty, release } from "../tensor.ts";
import type { Layer } from "./layer.ts";
import { linear } from "./linear.ts";
import { rmsNormLayer } from "./rms_norm.ts";

/** Shape of a gated feed-forward layer. */
export interface SwigluOptions {
  readonly width: number;
  readonly hidden: number;
  /** Standard deviation that the output projection starts with. */
  readonly outputDeviation: number;
}

/** The feed-forward half of a transformer block; gate and up are one projection to [gate | up]. */
export function swigluMlp(name: string, { width, hidden, outputDeviation }: SwigluOptions): Layer {
  const norm = rmsNormLayer(`${name}.norm`, width);
  const gateUpProjection = linear(`${name}.gate_up`, width, 2 * hidden);
  const down = linear(`${name}.down`, hidden, width, { initial: { normal: outputDeviation } });
  const parts = [["norm", norm], ["gate_up", gateUpProjection], ["down", down]] as const;

  return {
    parameters: parts.flatMap(([, layer]) => layer.parameters),
    keepsInput: true,
    keepsGradient: true,
    outputShape: (shape) => shape,
    flops(shape) {
      const [n, g, d] = [norm.flops(shape), gateUpProjection.flops(shape), down.flops([shape[0], hidden])];
      const gate = 5 * shape[0] * hidden;
      return { f: n.f + g.f + d.f + gate, i: n.i + g.i + d.i + 2 * gate, w: n.w + g.w + d.w };
    },
    forward(y, x, saved) {
      const rows = x.shape[0];
      const normed = saved.slot("normed", [rows, width], "activations");
      norm.forward(normed, x, saved.child("norm"));
      const gateUp = empty(x.device, [rows, 2 * hidden], "activations");
      gateUpProjection.forward(gateUp, normed, saved.child("gate_up"));
      const gated = saved.slot("gated", [rows, hidden], "activations");
      swiglu(gated, gateUp);
      const projected = empty(x.device, [rows, width], "workspace");
      down.forward(projected, gated, saved.child("down"));
      add(y, x, projected);
      saved.keep("gate_up", gateUp);
      release(normed, gateUp, gated, projected);
    },
    backwardInput(dx, dy, saved) {
      const rows = dy.shape[0];
      const dgated = empty(dy.device, [rows, hidden], "workspace");
      down.backwardInput(dgated, dy, saved.child("down"));
      const dgateUp = saved.slot("dgate_up", [rows, 2 * hidden], "derivatives");
      swigluBackward(dgateUp, dgated, saved.get("gate_up"));
      saved.drop("gate_up");
      release(dgated);
      const dnormed = saved.slot("dnormed", [rows, width], "derivatives");
      gateUpProjection.backwardInput(dnormed, dgateUp, saved.child("gate_up"));
      norm.backwardInput(dx, dnormed, saved.child("norm"), dy);
      release(dgateUp, dnormed);
    },
    backwardWeight(saved) {
      for (const [child, layer] of parts) layer.backwardWeight!(saved.map((each) => each.child(child)));
    },
  };
}
