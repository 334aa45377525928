/** LayerNorm: forward, and its two backward halves. */
import { floatBits } from "../gpu/gpu.ts";
import { kernel } from "../gpu/kernel.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import { columnSum } from "./bias.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowOperation } from "./variants.ts";

const forward = {
  plain: kernel("layer_norm", "forward"),
  vec4: kernel("layer_norm_vec4", "forward"),
  group: kernel("layer_norm_group", "forward"),
};
const backwardInput = {
  plain: kernel("layer_norm", "backward_input"),
  vec4: kernel("layer_norm_vec4", "backward_input"),
  group: kernel("layer_norm_group", "backward_input"),
};
const backwardWeight = {
  plain: kernel("layer_norm_weight", "backward_weight"),
  vec4: kernel("layer_norm_weight", "backward_weight4"),
};

/** Rows that one invocation of a GPU adds up for the gradients of gain and bias. */
const blockRows = 32;

/**
 * `y = gain * (x - mean) * rstd + bias` with `rstd = 1 / sqrt(variance + epsilon)` over each row (Ba, Kiros, Hinton, "Layer
 * Normalization", 2016). y, x: [R, D]; statistics: [R, 2], each row's mean and rstd, kept for the backward; gain, bias: [D].
 */
export function layerNorm(y: Tensor, statistics: Tensor, x: Tensor, gain: Tensor, bias: Tensor, epsilon: number): void {
  const rows = rowsOf(x), width = widthOf(x);
  expectShape("layerNorm", "y", y, x.shape, "float");
  expectShape("layerNorm", "statistics", statistics, [rows, 2]);
  expectShape("layerNorm", "gain", gain, [width], "float");
  expectShape("layerNorm", "bias", bias, [width], "float");
  layerNormRows.run([y, statistics, x, gain, bias, epsilon]);
}

const layerNormRows = rowOperation<
  [y: Tensor, statistics: Tensor, x: Tensor, gain: Tensor, bias: Tensor, epsilon: number]
>({
  name: "layerNorm",
  outputs: 2,
  rows: 2,
  record(variant, y, statistics, x, gain, bias, epsilon) {
    const rows = rowsOf(x), width = widthOf(x);
    const words = [rows, variant === "vec4" ? width / 4 : width, floatBits(epsilon)];
    const views = [y, statistics, x, gain, bias];
    x.device.dispatch(forward[variant], words, views, lanes(rows, variant === "group" ? 1 : 64));
  },
});

/**
 * The gradient of {@link layerNorm} with respect to x: with `g = dy * gain` and `n = (x - mean) * rstd`,
 * `dx = rstd * (g - mean(g) - n * mean(g * n))`. dx, dy, x: [R, D]; statistics: [R, 2]; gain: [D].
 */
export function layerNormBackwardInput(dx: Tensor, dy: Tensor, x: Tensor, statistics: Tensor, gain: Tensor): void {
  const rows = rowsOf(x), width = widthOf(x);
  expectShape("layerNormBackwardInput", "dx", dx, x.shape, "float");
  expectShape("layerNormBackwardInput", "dy", dy, x.shape, "float");
  expectShape("layerNormBackwardInput", "statistics", statistics, [rows, 2]);
  expectShape("layerNormBackwardInput", "gain", gain, [width], "float");
  layerNormBackwardInputRows.run([dx, dy, x, statistics, gain]);
}

const layerNormBackwardInputRows = rowOperation<[dx: Tensor, dy: Tensor, x: Tensor, statistics: Tensor, gain: Tensor]>({
  name: "layerNormBackwardInput",
  outputs: 1,
  rows: 2,
  record(variant, dx, dy, x, statistics, gain) {
    const rows = rowsOf(x), width = widthOf(x);
    const words = [rows, variant === "vec4" ? width / 4 : width, 0];
    const views = [dx, dy, x, statistics, gain];
    x.device.dispatch(backwardInput[variant], words, views, lanes(rows, variant === "group" ? 1 : 64));
  },
});

/**
 * The gradients of {@link layerNorm} with respect to gain and bias, added to `dgain` and `dbias`: the sums over rows of
 * `dy * (x - mean) * rstd` and of `dy`. dgain, dbias: [D]; dy, x: [R, D]; statistics: [R, 2].
 */
export function layerNormBackwardWeight(
  dgain: Tensor,
  dbias: Tensor,
  dy: Tensor,
  x: Tensor,
  statistics: Tensor,
): void {
  const rows = rowsOf(x), width = widthOf(x);
  expectShape("layerNormBackwardWeight", "dgain", dgain, [width]);
  expectShape("layerNormBackwardWeight", "dbias", dbias, [width]);
  expectShape("layerNormBackwardWeight", "dy", dy, x.shape, "float");
  expectShape("layerNormBackwardWeight", "statistics", statistics, [rows, 2]);
  layerNormBackwardWeightRows.run([dgain, dbias, dy, x, statistics]);
}

const layerNormBackwardWeightRows = rowOperation<
  [dgain: Tensor, dbias: Tensor, dy: Tensor, x: Tensor, statistics: Tensor]
>({
  name: "layerNormBackwardWeight",
  outputs: 2,
  rows: 3,
  record(variant, dgain, dbias, dy, x, statistics) {
    const rows = rowsOf(x), width = widthOf(x);
    const device = x.device;
    if (variant !== "group") {
      const columns = variant === "vec4" ? width / 4 : width;
      const views = [dgain, dbias, dy, x, statistics];
      device.dispatch(backwardWeight[variant], [rows, columns, rows, 1], views, lanes(columns));
      return;
    }
    // A GPU has far more invocations than there are columns: blocks of rows go side by side.
    const block = Math.max(blockRows, Math.ceil(rows / 65_535));
    const blocks = Math.ceil(rows / block);
    const gains = empty(device, [blocks, width], "workspace"), biases = empty(device, [blocks, width], "workspace");
    const [columnGroups] = lanes(width);
    const views = [gains, biases, dy, x, statistics];
    device.dispatch(backwardWeight.plain, [rows, width, block, 0], views, [columnGroups, blocks]);
    columnSum(dgain, gains);
    columnSum(dbias, biases);
    release(gains, biases); // reused at the earliest by a kernel recorded after these
  },
});
