/** Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450), y = gain * (x - mean) / deviation + bias. */
import { add } from "../ops/elementwise.ts";
import { layerNorm, layerNormBackwardInput, layerNormBackwardWeight } from "../ops/layer_norm.ts";
import { empty, joinAdjacent, release } from "../tensor.ts";
import { parameter } from "./parameter.ts";
import type { ResidualNorm } from "./rms_norm.ts";

/** Normalises each row of `width` features. W reads x, the rows' means and deviations, and dy. */
export function layerNormLayer(name: string, width: number, epsilon = 1e-5): ResidualNorm {
  const gain = parameter(`${name}.weight`, [width], "ones");
  const bias = parameter(`${name}.bias`, [width], "zeros");
  return {
    parameters: [gain, bias],
    addsResidual: true,
    keepsInput: true,
    keepsGradient: true,
    outputShape: (shape) => shape,
    flops: ([rows]) => ({ f: 7 * rows * width, i: 10 * rows * width, w: 5 * rows * width }),
    forward(y, x, saved) {
      const statistics = saved.slot("statistics", [x.shape[0], 2], "activations");
      layerNorm(y, statistics, x, gain.value, bias.value, epsilon);
      saved.keep("x", x);
      saved.keep("statistics", statistics);
      release(statistics);
    },
    backwardInput(dx, dy, saved, residual) {
      saved.keep("dy", dy);
      if (!dx) return;
      const own = residual ? empty(dx.device, dx.shape, "workspace", dx.dtype) : dx;
      layerNormBackwardInput(own, dy, saved.get("x"), saved.get("statistics"), gain.value);
      if (!residual) return;
      add(dx, residual, own);
      release(own);
    },
    backwardWeight(saved) {
      const rows = saved.map((each) => [each.get("dy"), each.get("x"), each.get("statistics")] as const);
      for (const [dy, x, statistics] of joinAdjacent(rows)) {
        layerNormBackwardWeight(gain.gradient, bias.gradient, dy, x, statistics);
      }
    },
  };
}
