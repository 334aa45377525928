/** Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467), y = gain * x / rms(x). */
import { columnSum } from "../ops/bias.ts";
import * as ops from "../ops/norm.ts";
import { joinAdjacent } from "../tensor.ts";
import { expectInput, type ResidualNorm } from "./layer.ts";
import { butFrozen, isTrained, parameter, type Trainable } from "./parameter.ts";

/**
 * Normalises each row of `width` features. I, which reads x and dy anyway, sums up the gain's gradient over the rows, so
 * that both go after it; what is left for W is to add the micro-batches' sums to the parameter's gradient.
 */
export function rmsNorm(name: string, width: number, epsilon = 1e-5, trainable: Trainable = true): ResidualNorm {
  const gain = parameter(`${name}.weight`, [width], "ones", trainable), trainsGain = isTrained(gain);
  return {
    parameters: [gain],
    addsResidual: true,
    reads: {},
    outputShape(shape) {
      expectInput(name, shape, ["rows", width]);
      return shape;
    },
    flops: ([rows]) => ({ f: 4 * rows * width, i: (trainsGain ? 11 : 8) * rows * width, w: trainsGain ? width : 0 }),
    forward(y, x, saved) {
      const rstd = saved.scratch([x.shape[0]], "f32", "activations");
      ops.rmsNorm(y, rstd, x, saved.value(gain), epsilon);
      saved.keep("x", x);
      saved.keep("rstd", rstd);
    },
    backwardInput(dx, dy, saved, residual) {
      const x = saved.get("x"), rstd = saved.get("rstd");
      if (trainsGain) {
        const dgain = saved.slot("dgain", [1, width], "derivatives");
        ops.rmsNormSums(dgain, dy, x, rstd);
        saved.keep("dgain", dgain);
      }
      if (dx) ops.rmsNormBackwardInput(dx, dy, x, rstd, saved.value(gain), residual);
      saved.drop("x", "rstd");
    },
    backwardWeight(saved) {
      const gradient = saved[0].gradient(gain);
      for (const [dgain] of joinAdjacent(saved.map((each) => [each.get("dgain")]))) columnSum(gradient, dgain);
    },
    freeze: (isFrozen) => rmsNorm(name, width, epsilon, butFrozen(trainable, isFrozen)),
  };
}
