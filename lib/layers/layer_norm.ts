/** Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450), y = gain * (x - mean) / deviation + bias. */
import { columnSum } from "../ops/bias.ts";
import { add } from "../ops/elementwise.ts";
import * as ops from "../ops/layer_norm.ts";
import { joinAdjacent } from "../tensor.ts";
import { expectInput, type ResidualNorm } from "./layer.ts";
import { parameter } from "./parameter.ts";

/**
 * Normalises each row of `width` features. I, which reads x and dy anyway, sums up the gradients of gain and bias over the
 * rows, so that both go after it; what is left for W is to add the micro-batches' sums to the parameters' gradients.
 */
export function layerNorm(name: string, width: number, epsilon = 1e-5): ResidualNorm {
  const gain = parameter(`${name}.weight`, [width], "ones");
  const bias = parameter(`${name}.bias`, [width], "zeros");
  return {
    parameters: [gain, bias],
    addsResidual: true,
    reads: {},
    outputShape(shape) {
      expectInput(name, shape, ["rows", width]);
      return shape;
    },
    flops: ([rows]) => ({ f: 7 * rows * width, i: 15 * rows * width, w: 2 * width }),
    forward(y, x, saved) {
      const statistics = saved.scratch([x.shape[0], 2], "f32", "activations");
      ops.layerNorm(y, statistics, x, saved.value(gain), saved.value(bias), epsilon);
      saved.keep("x", x);
      saved.keep("statistics", statistics);
    },
    backwardInput(dx, dy, saved, residual) {
      const x = saved.get("x"), statistics = saved.get("statistics");
      const dgain = saved.slot("dgain", [1, width], "derivatives");
      const dbias = saved.slot("dbias", [1, width], "derivatives");
      ops.layerNormSums(dgain, dbias, dy, x, statistics);
      if (dx) {
        const own = residual ? saved.scratch(dx.shape, dx.dtype) : dx;
        ops.layerNormBackwardInput(own, dy, x, statistics, saved.value(gain));
        if (residual) add(dx, residual, own);
      }
      saved.drop("x", "statistics");
      saved.keep("dgain", dgain);
      saved.keep("dbias", dbias);
    },
    backwardWeight(saved) {
      const [{ gradient }] = saved;
      const sums = saved.map((each) => [each.get("dgain"), each.get("dbias")] as const);
      for (const [dgain, dbias] of joinAdjacent(sums)) {
        columnSum(gradient(gain), dgain);
        columnSum(gradient(bias), dbias);
      }
    },
  };
}
