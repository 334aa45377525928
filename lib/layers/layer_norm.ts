/** Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450), y = gain * (x - mean) / deviation + bias. */
import { add } from "../ops/elementwise.ts";
import * as ops from "../ops/layer_norm.ts";
import { expectInput, type ResidualNorm } from "./layer.ts";
import { addSums, keptSum } from "./kept_sums.ts";
import { butFrozen, isTrained, parameter, type Trainable } from "./parameter.ts";

/**
 * Normalises each row of `width` features. I, which reads x and dy anyway, sums up the gradients of gain and bias over the
 * rows, so that both go after it; what is left for W is to add the micro-batches' sums to the parameters' gradients.
 */
export function layerNorm(name: string, width: number, epsilon = 1e-5, trainable: Trainable = true): ResidualNorm {
  const gain = parameter(`${name}.weight`, [width], "ones", trainable);
  const bias = parameter(`${name}.bias`, [width], "zeros", trainable);
  const [trainsGain, trainsBias] = [isTrained(gain), isTrained(bias)];
  return {
    parameters: [gain, bias],
    addsResidual: true,
    reads: {},
    outputShape(shape) {
      expectInput(name, shape, ["rows", width]);
      return shape;
    },
    flops([rows]) {
      const size = rows * width, trained = Number(trainsGain) + Number(trainsBias);
      return { f: 7 * size, i: (trained ? 15 : 10) * size, w: trained * width };
    },
    forward(y, x, saved) {
      const statistics = saved.scratch([x.shape[0], 2], "f32", "activations");
      ops.layerNorm(y, statistics, x, saved.value(gain), saved.value(bias), epsilon);
      saved.keep("x", x);
      saved.keep("statistics", statistics);
    },
    backwardInput(dx, dy, saved, residual) {
      const x = saved.get("x"), statistics = saved.get("statistics");
      if (trainsGain || trainsBias) {
        const [dgain, dbias] = [keptSum(saved, "dgain", width, trainsGain), keptSum(saved, "dbias", width, trainsBias)];
        ops.layerNormSums(dgain, dbias, dy, x, statistics);
      }
      if (dx) {
        const own = residual ? saved.scratch(dx.shape, dx.dtype) : dx;
        ops.layerNormBackwardInput(own, dy, x, statistics, saved.value(gain));
        if (residual) add(dx, residual, own);
      }
      saved.drop("x", "statistics");
    },
    backwardWeight(saved) {
      if (trainsGain) addSums(gain, "dgain", saved);
      if (trainsBias) addSums(bias, "dbias", saved);
    },
    freeze: (isFrozen) => layerNorm(name, width, epsilon, butFrozen(trainable, isFrozen)),
  };
}
