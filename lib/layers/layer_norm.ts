/** Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450), y = gain * (x - mean) / deviation + bias. */
import { columnSum } from "../ops/bias.ts";
import { add } from "../ops/elementwise.ts";
import * as ops from "../ops/layer_norm.ts";
import { joinAdjacent, type Tensor } from "../tensor.ts";
import { between } from "./composite.ts";
import { expectInput, type ResidualNorm } from "./layer.ts";
import { parameter } from "./parameter.ts";

/**
 * Normalises each row of `width` features. The gradients of gain and bias are sums over the rows of x and dy (`Saved.sums`). I,
 * which reads both anyway, makes them, so that both go after it, and what is left for W is to add the micro-batches' sums up; or x
 * and dy wait for W, which makes one sum over all of its micro-batches.
 */
export function layerNorm(name: string, width: number, epsilon = 1e-5): ResidualNorm {
  const gain = parameter(`${name}.weight`, [width], "ones");
  const bias = parameter(`${name}.bias`, [width], "zeros");
  return {
    parameters: [gain, bias],
    addsResidual: true,
    reads: { input: "sums", gradient: "sums" },
    outputShape(shape) {
      expectInput(name, shape, ["rows", width]);
      return shape;
    },
    flops([rows]) {
      const size = rows * width;
      return { f: 7 * size, i: 15 * size, w: 2 * width, sums: { i: 5 * size, w: 5 * size } };
    },
    forward(y, x, saved) {
      const statistics = between(saved, "statistics", { shape: [x.shape[0], 2], dtype: "f32" }, "sums", "activations");
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
      if (saved.sums === "w") return saved.keep("dy", dy);
      const dgain = saved.slot("dgain", [1, width], "derivatives");
      const dbias = saved.slot("dbias", [1, width], "derivatives");
      ops.layerNormSums(dgain, dbias, dy, x, statistics);
      saved.drop("x", "statistics");
      saved.keep("dgain", dgain);
      saved.keep("dbias", dbias);
    },
    backwardWeight(saved) {
      const [{ gradient, sums, scratch }] = saved;
      const addUp = (dgain: Tensor, dbias: Tensor) => {
        columnSum(gradient(gain), dgain);
        columnSum(gradient(bias), dbias);
      };
      if (sums === "i") {
        const made = saved.map((each) => [each.get("dgain"), each.get("dbias")] as const);
        for (const [dgain, dbias] of joinAdjacent(made)) addUp(dgain, dbias);
        return;
      }
      const [dgain, dbias] = [scratch([1, width]), scratch([1, width])];
      const read = saved.map((each) => [each.get("dy"), each.get("x"), each.get("statistics")] as const);
      for (const [dy, x, statistics] of joinAdjacent(read)) {
        ops.layerNormSums(dgain, dbias, dy, x, statistics);
        addUp(dgain, dbias);
      }
    },
  };
}
