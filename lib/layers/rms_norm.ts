/** Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467), y = gain * x / rms(x). */
import { rmsNorm, rmsNormBackwardInput, rmsNormBackwardWeight } from "../ops/norm.ts";
import { joinAdjacent, release, type Tensor } from "../tensor.ts";
import type { Layer } from "./layer.ts";
import { parameter } from "./parameter.ts";
import type { Saved } from "./saved.ts";

/** A normalisation whose backward can add the gradient that flows around it. */
export interface ResidualNorm extends Layer {
  /** Tells it from layers that would leave `residual` out without a word. */
  readonly addsResidual: true;
  /** As {@link Layer.backwardInput}; with `residual`, dx = residual + the gradient, as pre-norm blocks need it. */
  backwardInput(dx: Tensor | undefined, dy: Tensor, saved: Saved, residual?: Tensor): void;
}

/** Normalises each row of `width` features. W reads x, the rows' reciprocal deviations and dy. */
export function rmsNormLayer(name: string, width: number): ResidualNorm {
  const gain = parameter(`${name}.weight`, [width], "ones");
  return {
    parameters: [gain],
    addsResidual: true,
    keepsInput: true,
    keepsGradient: true,
    outputShape: (shape) => shape,
    flops: ([rows]) => ({ f: 4 * rows * width, i: 8 * rows * width, w: 3 * rows * width }),
    forward(y, x, saved) {
      const rstd = saved.slot("rstd", [x.shape[0]], "activations");
      rmsNorm(y, rstd, x, gain.value);
      saved.keep("x", x);
      saved.keep("rstd", rstd);
      release(rstd);
    },
    backwardInput(dx, dy, saved, residual) {
      saved.keep("dy", dy);
      if (dx) rmsNormBackwardInput(dx, dy, saved.get("x"), saved.get("rstd"), gain.value, residual);
    },
    backwardWeight(saved) {
      const rows = saved.map((each) => [each.get("dy"), each.get("x"), each.get("rstd")] as const);
      for (const [dy, x, rstd] of joinAdjacent(rows)) rmsNormBackwardWeight(gain.gradient, dy, x, rstd);
    },
  };
}
