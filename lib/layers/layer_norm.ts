/** Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450), y = gain * (x - mean) / deviation + bias. */
import { columnSum } from "../ops/bias.ts";
import { add } from "../ops/elementwise.ts";
import { layerNorm, layerNormBackwardInput, layerNormSums } from "../ops/layer_norm.ts";
import { empty, joinAdjacent, release } from "../tensor.ts";
import { parameter } from "./parameter.ts";
import type { ResidualNorm } from "./rms_norm.ts";

/**
 * Normalises each row of `width` features. I, which reads x and dy anyway, sums up the gradients of gain and bias over the
 * rows, so that both go after it; what is left for W is to add the micro-batches' sums to the parameters' gradients.
 */
export function layerNormLayer(name: string, width: number, epsilon = 1e-5): ResidualNorm {
  const gain = parameter(`${name}.weight`, [width], "ones");
  const bias = parameter(`${name}.bias`, [width], "zeros");
  return {
    parameters: [gain, bias],
    addsResidual: true,
    keepsInput: false,
    keepsGradient: false,
    outputShape: (shape) => shape,
    flops: ([rows]) => ({ f: 7 * rows * width, i: 15 * rows * width, w: 2 * width }),
    forward(y, x, saved) {
      const statistics = empty(x.device, [x.shape[0], 2], "activations");
      layerNorm(y, statistics, x, gain.value, bias.value, epsilon);
      saved.keep("x", x);
      saved.keep("statistics", statistics);
      release(statistics);
    },
    backwardInput(dx, dy, saved, residual) {
      const x = saved.get("x"), statistics = saved.get("statistics");
      const dgain = saved.slot("dgain", [1, width], "derivatives");
      const dbias = saved.slot("dbias", [1, width], "derivatives");
      layerNormSums(dgain, dbias, dy, x, statistics);
      if (dx) {
        const own = residual ? empty(dx.device, dx.shape, "workspace", dx.dtype) : dx;
        layerNormBackwardInput(own, dy, x, statistics, gain.value);
        if (residual) {
          add(dx, residual, own);
          release(own);
        }
      }
      saved.drop("x", "statistics");
      saved.keep("dgain", dgain);
      saved.keep("dbias", dbias);
      release(dgain, dbias);
    },
    backwardWeight(saved) {
      const sums = saved.map((each) => [each.get("dgain"), each.get("dbias")] as const);
      for (const [dgain, dbias] of joinAdjacent(sums)) {
        columnSum(gain.gradient, dgain);
        columnSum(bias.gradient, dbias);
      }
    },
  };
}
