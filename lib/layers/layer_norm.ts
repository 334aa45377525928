/** Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450), y = gain * (x - mean) / deviation + bias. */
import { columnSum } from "../ops/bias.ts";
import { add } from "../ops/elementwise.ts";
import * as ops from "../ops/layer_norm.ts";
import { joinAdjacent } from "../tensor.ts";
import { between } from "./composite.ts";
import { addSums, keptSum } from "./kept_sums.ts";
import { expectInput, type ResidualNorm } from "./layer.ts";
import { butFrozen, isTrained, parameter, type Trainable } from "./parameter.ts";

/**
 * Normalises each row of `width` features. The gradients of gain and bias are sums over the rows of x and dy (`Saved.sums`). I,
 * which reads both anyway, makes them, so that both go after it, and what is left for W is to add the micro-batches' sums up; or x
 * and dy wait for W, which makes one sum over all of its micro-batches.
 */
export function layerNorm(name: string, width: number, epsilon = 1e-5, trainable: Trainable = true): ResidualNorm {
  const gain = parameter(`${name}.weight`, [width], "ones", trainable);
  const bias = parameter(`${name}.bias`, [width], "zeros", trainable);
  const trainsGain = isTrained(gain), trainsBias = isTrained(bias), trained = Number(trainsGain) + Number(trainsBias);
  return {
    parameters: [gain, bias],
    addsResidual: true,
    pieces: "alone",
    reads: trained > 0 ? { input: "sums", gradient: "sums" } : {},
    outputShape(shape) {
      expectInput(name, shape, ["rows", width]);
      return shape;
    },
    flops([rows]) {
      const size = rows * width;
      if (trained === 0) return { f: 7 * size, i: 10 * size, w: 0 };
      return { f: 7 * size, i: 15 * size, w: trained * width, sums: { i: 5 * size, w: 5 * size } };
    },
    forward(y, x, saved) {
      const statistics = between(
        saved,
        "statistics",
        { shape: [x.shape[0], 2], dtype: "f32" },
        trained > 0 && "sums",
        "activations",
      );
      ops.layerNorm(y, statistics, x, saved.value(gain), saved.value(bias), epsilon);
      saved.keep("x", x);
      saved.keep("statistics", statistics);
    },
    backwardInput(dx, dy, saved, residual) {
      const x = saved.get("x"), statistics = saved.get("statistics");
      if (dx) {
        const own = residual ? saved.scratch(dx.shape, dx.dtype) : dx;
        ops.layerNormBackwardInput(own, dy, x, statistics, saved.value(gain));
        if (residual) add(dx, residual, own);
      }
      if (trained > 0 && saved.sums === "w") return saved.keep("dy", dy);
      if (trained > 0) {
        const [dgain, dbias] = [keptSum(saved, "dgain", width, trainsGain), keptSum(saved, "dbias", width, trainsBias)];
        ops.layerNormSums(dgain, dbias, dy, x, statistics);
      }
      saved.drop("x", "statistics");
    },
    backwardWeight(saved) {
      const [{ gradient, sums, scratch }] = saved;
      if (sums === "i") {
        if (trainsGain) addSums(gain, "dgain", saved);
        if (trainsBias) addSums(bias, "dbias", saved);
        return;
      }
      const [dgain, dbias] = [scratch([1, width]), scratch([1, width])];
      const read = saved.map((each) => [each.get("dy"), each.get("x"), each.get("statistics")] as const);
      for (const [dy, x, statistics] of joinAdjacent(read)) {
        ops.layerNormSums(dgain, dbias, dy, x, statistics);
        if (trainsGain) columnSum(gradient(gain), dgain);
        if (trainsBias) columnSum(gradient(bias), dbias);
      }
    },
    freeze: (isFrozen) => layerNorm(name, width, epsilon, butFrozen(trainable, isFrozen)),
  };
}
