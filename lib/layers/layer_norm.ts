/** Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450), y = gain * (x - mean) / deviation + bias. */
import { layerNorm, layerNormBackwardInput, layerNormBackwardWeight } from "../ops/layer_norm.ts";
import { joinAdjacent, release } from "../tensor.ts";
import type { Layer } from "./layer.ts";
import { parameter } from "./parameter.ts";

/** Normalises each row of `width` features. W reads x, the rows' means and deviations, and dy. */
export function layerNormLayer(name: string, width: number, epsilon = 1e-5): Layer {
  const gain = parameter(`${name}.weight`, [width], "ones");
  const bias = parameter(`${name}.bias`, [width], "zeros");
  return {
    parameters: [gain, bias],
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
    backwardInput(dx, dy, saved) {
      saved.keep("dy", dy);
      if (dx) layerNormBackwardInput(dx, dy, saved.get("x"), saved.get("statistics"), gain.value);
    },
    backwardWeight(saved) {
      const rows = saved.map((each) => [each.get("dy"), each.get("x"), each.get("statistics")] as const);
      for (const [dy, x, statistics] of joinAdjacent(rows)) {
        layerNormBackwardWeight(gain.gradient, bias.gradient, dy, x, statistics);
      }
    },
  };
}
