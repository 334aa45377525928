/** Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467), y = gain * x / rms(x). */
import { columnSum } from "../ops/bias.ts";
import { rmsNorm, rmsNormBackwardInput, rmsNormSums } from "../ops/norm.ts";
import { empty, joinAdjacent, release, type Tensor } from "../tensor.ts";
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

/**
 * Normalises each row of `width` features. I, which reads x and dy anyway, sums up the gain's gradient over the rows, so
 * that both go after it; what is left for W is to add the micro-batches' sums to the parameter's gradient.
 */
export function rmsNormLayer(name: string, width: number, epsilon = 1e-5): ResidualNorm {
  const gain = parameter(`${name}.weight`, [width], "ones");
  return {
    parameters: [gain],
    addsResidual: true,
    keepsInput: false,
    keepsGradient: false,
    outputShape: (shape) => shape,
    flops: ([rows]) => ({ f: 4 * rows * width, i: 11 * rows * width, w: width }),
    forward(y, x, saved) {
      const rstd = empty(x.device, [x.shape[0]], "activations");
      rmsNorm(y, rstd, x, gain.value, epsilon);
      saved.keep("x", x);
      saved.keep("rstd", rstd);
      release(rstd);
    },
    backwardInput(dx, dy, saved, residual) {
      const x = saved.get("x"), rstd = saved.get("rstd");
      const dgain = saved.slot("dgain", [1, width], "derivatives");
      rmsNormSums(dgain, dy, x, rstd);
      if (dx) rmsNormBackwardInput(dx, dy, x, rstd, gain.value, residual);
      saved.drop("x", "rstd");
      saved.keep("dgain", dgain);
      release(dgain);
    },
    backwardWeight(saved) {
      for (const [dgain] of joinAdjacent(saved.map((each) => [each.get("dgain")]))) columnSum(gain.gradient, dgain);
    },
  };
}
