/** Gated feed-forward network (SwiGLU, Shazeer, arXiv 2002.05202): y = down(silu(gate(x)) * up(x)). */
import { swiglu, swigluBackward } from "../ops/swiglu.ts";
import { empty, release } from "../tensor.ts";
import type { Layer } from "./layer.ts";
import { linear } from "./linear.ts";

/** Shape of a gated feed-forward layer. */
export interface SwigluOptions {
  /** Features of x and y. */
  readonly width: number;
  /** Features inside. */
  readonly hidden: number;
  /** Standard deviation that the output projection starts with. */
  readonly outputDeviation: number;
}

/**
 * The feed-forward network of a transformer block, without normalisation and residual (see `preNorm`); gate and up are one
 * projection to [gate | up].
 */
export function swigluMlp(name: string, { width, hidden, outputDeviation }: SwigluOptions): Layer {
  const gateUpProjection = linear(`${name}.gate_up`, width, 2 * hidden);
  const down = linear(`${name}.down`, hidden, width, { initial: { normal: outputDeviation } });
  const parts = [["gate_up", gateUpProjection], ["down", down]] as const;

  return {
    parameters: parts.flatMap(([, layer]) => layer.parameters),
    keepsInput: true,
    keepsGradient: true,
    outputShape: (shape) => shape,
    flops(shape) {
      const [g, d] = [gateUpProjection.flops(shape), down.flops([shape[0], hidden])];
      const gate = 5 * shape[0] * hidden;
      return { f: g.f + d.f + gate, i: g.i + d.i + 2 * gate, w: g.w + d.w, again: g.f + gate };
    },
    forward(y, x, saved) {
      const rows = x.shape[0];
      const gateUp = empty(x.device, [rows, 2 * hidden], "activations", y.dtype);
      gateUpProjection.forward(gateUp, x, saved.child("gate_up"));
      const gated = saved.slot("gated", [rows, hidden], "activations", y.dtype);
      swiglu(gated, gateUp);
      down.forward(y, gated, saved.child("down", { unread: saved.unread }));
      saved.keep("gate_up", gateUp);
      release(gateUp, gated);
    },
    backwardInput(dx, dy, saved) {
      const rows = dy.shape[0];
      const dgated = empty(dy.device, [rows, hidden], "workspace", dy.dtype);
      down.backwardInput(dgated, dy, saved.child("down"));
      const dgateUp = saved.slot("dgate_up", [rows, 2 * hidden], "derivatives", dy.dtype);
      swigluBackward(dgateUp, dgated, saved.get("gate_up"));
      saved.drop("gate_up");
      release(dgated);
      gateUpProjection.backwardInput(dx, dgateUp, saved.child("gate_up"));
      release(dgateUp);
    },
    backwardWeight(saved) {
      for (const [child, layer] of parts) layer.backwardWeight!(saved.map((each) => each.child(child)));
    },
  };
}
