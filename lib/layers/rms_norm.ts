/** Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467), y = gain * x / rms(x). */
import { columnSum } from "../ops/bias.ts";
import * as ops from "../ops/norm.ts";
import { joinAdjacent } from "../tensor.ts";
import { between } from "./composite.ts";
import { expectInput, type ResidualNorm } from "./layer.ts";
import { butFrozen, isTrained, parameter, type Trainable } from "./parameter.ts";

/**
 * Normalises each row of `width` features. The gain's gradient is a sum over the rows of x and dy (`Saved.sums`). I, which reads both
 * anyway, makes it, so that both go after it, and what is left for W is to add the micro-batches' sums up; or x and dy wait for W,
 * which makes one sum over all of its micro-batches.
 */
export function rmsNorm(name: string, width: number, epsilon = 1e-5, trainable: Trainable = true): ResidualNorm {
  const gain = parameter(`${name}.weight`, [width], "ones", trainable), trainsGain = isTrained(gain);
  return {
    parameters: [gain],
    addsResidual: true,
    pieces: "alone",
    reads: trainsGain ? { input: "sums", gradient: "sums" } : {},
    outputShape(shape) {
      expectInput(name, shape, ["rows", width]);
      return shape;
    },
    flops([rows]) {
      const size = rows * width;
      if (!trainsGain) return { f: 4 * size, i: 8 * size, w: 0 };
      return { f: 4 * size, i: 11 * size, w: width, sums: { i: 3 * size, w: 3 * size } };
    },
    forward(y, x, saved) {
      const rstd = between(saved, "rstd", { shape: [x.shape[0]], dtype: "f32" }, trainsGain && "sums", "activations");
      ops.rmsNorm(y, rstd, x, saved.value(gain), epsilon);
      saved.keep("x", x);
      saved.keep("rstd", rstd);
    },
    backwardInput(dx, dy, saved, residual) {
      const x = saved.get("x"), rstd = saved.get("rstd");
      if (dx) ops.rmsNormBackwardInput(dx, dy, x, rstd, saved.value(gain), residual);
      if (trainsGain && saved.sums === "w") return saved.keep("dy", dy);
      if (trainsGain) {
        const dgain = saved.slot("dgain", [1, width], "derivatives");
        ops.rmsNormSums(dgain, dy, x, rstd);
        saved.keep("dgain", dgain);
      }
      saved.drop("x", "rstd");
    },
    backwardWeight(saved) {
      const [{ gradient, sums, scratch }] = saved;
      if (sums === "i") {
        for (const [dgain] of joinAdjacent(saved.map((each) => [each.get("dgain")]))) columnSum(gradient(gain), dgain);
        return;
      }
      const dgain = scratch([1, width]);
      const read = saved.map((each) => [each.get("dy"), each.get("x"), each.get("rstd")] as const);
      for (const [dy, x, rstd] of joinAdjacent(read)) {
        ops.rmsNormSums(dgain, dy, x, rstd);
        columnSum(gradient(gain), dgain);
      }
    },
    freeze: (isFrozen) => rmsNorm(name, width, epsilon, butFrozen(trainable, isFrozen)),
  };
}
