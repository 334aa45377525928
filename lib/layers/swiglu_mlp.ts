/** Gated feed-forward network (SwiGLU, Shazeer, arXiv 2002.05202): y = down(silu(gate(x)) * up(x)). */
import { swiglu, swigluBackward } from "../ops/swiglu.ts";
import { between, composed } from "./composite.ts";
import { expectInput, type Layer } from "./layer.ts";
import { linear } from "./linear.ts";
import type { Trainable } from "./parameter.ts";
import { piecesOf } from "./past.ts";
import { backwardInput, forward } from "./run.ts";

/** Shape of a gated feed-forward layer. */
export interface SwigluOptions {
  /** Features of x and y. */
  readonly width: number;
  /** Features inside. */
  readonly hidden: number;
  /** Standard deviation that the output projection starts with. */
  readonly outputDeviation: number;
  /** Which parameters are trained; all by default. */
  readonly trainable?: Trainable;
}

/**
 * The feed-forward network of a transformer block, without normalisation and residual (see `preNorm`); gate and up are one
 * projection to [gate | up].
 */
export function swigluMlp(name: string, options: SwigluOptions): Layer {
  const { width, hidden, outputDeviation, trainable = true } = options;
  const parts = ["gate", "up"].map((part) => ({ name: `${name}.${part}`, outputs: hidden }));
  return gated(
    name,
    options,
    linear(`${name}.gate_up`, width, 2 * hidden, { parts, trainable }),
    linear(`${name}.down`, hidden, width, { initial: { normal: outputDeviation }, trainable }),
  );
}

/** Of these projections, or what stands for them. */
function gated(
  name: string,
  { width, hidden }: Pick<SwigluOptions, "width" | "hidden">,
  gateUpProjection: Layer,
  down: Layer,
): Layer {
  return composed({ gate_up: gateUpProjection, down }, {
    ...piecesOf(gateUpProjection, down),
    reads: { input: gateUpProjection.reads.input, gradient: down.reads.gradient },
    outputShape(shape) {
      expectInput(name, shape, ["rows", width]);
      return shape;
    },
    flops(shape) {
      const [g, d] = [gateUpProjection.flops(shape), down.flops([shape[0], hidden])];
      const gate = 5 * shape[0] * hidden;
      return { f: g.f + d.f + gate, i: g.i + d.i + 2 * gate, w: g.w + d.w, recompute: g.f + gate };
    },
    forward(y, x, saved) {
      const rows = x.shape[0];
      const gateUp = saved.scratch([rows, 2 * hidden], y.dtype, "activations");
      forward(gateUpProjection, gateUp, x, saved.child("gate_up"));
      const inside = { shape: [rows, hidden], dtype: y.dtype };
      const gated = between(saved, "gated", inside, down.reads.input, "activations");
      swiglu(gated, gateUp);
      forward(down, y, gated, saved.child("down", { unread: saved.unread }));
      saved.keep("gate_up", gateUp);
    },
    backwardInput(dx, dy, saved) {
      const rows = dy.shape[0];
      const dgated = saved.scratch([rows, hidden], dy.dtype);
      backwardInput(down, dgated, dy, saved.child("down"));
      const inside = { shape: [rows, 2 * hidden], dtype: dy.dtype };
      const dgateUp = between(saved, "dgate_up", inside, gateUpProjection.reads.gradient, "derivatives");
      swigluBackward(dgateUp, dgated, saved.get("gate_up"));
      saved.drop("gate_up");
      saved.release(dgated);
      backwardInput(gateUpProjection, dx, dgateUp, saved.child("gate_up"));
    },
    withParts: (change) => gated(name, { width, hidden }, change(gateUpProjection), change(down)),
  });
}
