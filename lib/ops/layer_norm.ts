/** LayerNorm: forward, and its two backward halves. */
import { kernel } from "../gpu/kernel.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import { columnTotals } from "./bias.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowOperation, sumBlocks } from "./variants.ts";

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
const sums = { plain: kernel("layer_norm_weight", "sums"), vec4: kernel("layer_norm_weight", "sums4") };

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
    const parameters = { rows, width: variant === "vec4" ? width / 4 : width, epsilon };
    const views = [y, statistics, x, gain, bias];
    x.device.dispatch(forward[variant], parameters, views, lanes(rows, variant === "group" ? 1 : 64));
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
    const parameters = { rows, width: variant === "vec4" ? width / 4 : width, epsilon: 0 };
    const views = [dx, dy, x, statistics, gain];
    x.device.dispatch(backwardInput[variant], parameters, views, lanes(rows, variant === "group" ? 1 : 64));
  },
});

/**
 * The gradients of {@link layerNorm} with respect to gain and bias, for one micro-batch and *not* added to anything: the
 * sums over rows of `dy * (x - mean) * rstd` and of `dy`. dgain, dbias: [D]; dy, x: [R, D]; statistics: [R, 2].
 */
export function layerNormSums(dgain: Tensor, dbias: Tensor, dy: Tensor, x: Tensor, statistics: Tensor): void {
  const rows = rowsOf(x), width = widthOf(x);
  expectShape("layerNormSums", "dgain", dgain, [width]);
  expectShape("layerNormSums", "dbias", dbias, [width]);
  expectShape("layerNormSums", "dy", dy, x.shape, "float");
  expectShape("layerNormSums", "statistics", statistics, [rows, 2]);
  layerNormSumsRows.run([dgain, dbias, dy, x, statistics]);
}

const layerNormSumsRows = rowOperation<[dgain: Tensor, dbias: Tensor, dy: Tensor, x: Tensor, statistics: Tensor]>({
  name: "layerNormSums",
  outputs: 2,
  rows: 3,
  record(variant, dgain, dbias, dy, x, statistics) {
    const { device } = x;
    const rows = rowsOf(x), width = widthOf(x);
    const columns = variant === "vec4" ? width / 4 : width;
    const { block, blocks } = sumBlocks(variant, rows);
    const partial = (whole: Tensor) => blocks === 1 ? whole : empty(device, [blocks, width], "workspace");
    const gains = partial(dgain), biases = partial(dbias);
    const kernel = sums[variant === "vec4" ? "vec4" : "plain"];
    const views = [gains, biases, dy, x, statistics];
    device.dispatch(kernel, { rows, width: columns, block }, views, lanes(columns * blocks));
    if (blocks === 1) return;
    columnTotals(dgain, gains);
    columnTotals(dbias, biases);
    release(gains, biases); // reused at the earliest by a kernel recorded after these
  },
});
