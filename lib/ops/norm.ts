/** RMSNorm: forward, and its two backward halves. */
import { kernel } from "../gpu/kernel.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import { columnTotals } from "./bias.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowOperation, sumBlocks } from "./variants.ts";

const forward = {
  plain: kernel("norm", "forward"),
  vec4: kernel("norm_vec4", "forward"),
  group: kernel("norm_group", "forward"),
};
const backwardInput = {
  plain: kernel("norm", "backward_input"),
  vec4: kernel("norm_vec4", "backward_input"),
  group: kernel("norm_group", "backward_input"),
};
const sums = { plain: kernel("norm_weight", "sums"), vec4: kernel("norm_weight", "sums4") };

/**
 * `y = gain * x * rstd` with `rstd = 1 / sqrt(mean(x^2) + epsilon)` over each row (Zhang, Sennrich, "Root Mean Square
 * Layer Normalization", 2019). y, x: [R, D]; rstd: [R], kept for the backward; gain: [D].
 */
export function rmsNorm(y: Tensor, rstd: Tensor, x: Tensor, gain: Tensor, epsilon = 1e-5): void {
  const rows = rowsOf(x), width = widthOf(x);
  expectShape("rmsNorm", "y", y, x.shape, "float");
  expectShape("rmsNorm", "rstd", rstd, [rows]);
  expectShape("rmsNorm", "gain", gain, [width], "float");
  rmsNormRows.run([y, rstd, x, gain, epsilon]);
}

const rmsNormRows = rowOperation<[y: Tensor, rstd: Tensor, x: Tensor, gain: Tensor, epsilon: number]>({
  name: "rmsNorm",
  outputs: 2,
  rows: 2,
  record(variant, y, rstd, x, gain, epsilon) {
    const rows = rowsOf(x), width = widthOf(x);
    const parameters = { rows, width: variant === "vec4" ? width / 4 : width, epsilon, residual: 0 };
    x.device.dispatch(forward[variant], parameters, [y, rstd, x, gain], lanes(rows, variant === "group" ? 1 : 64));
  },
});

/**
 * The gradient of {@link rmsNorm} with respect to x: `dx = rstd * (dy * gain - x * rstd^2 * mean(dy * gain * x))`, plus
 * `residual` where one is given (the gradient that a pre-norm block's skip connection carries past the norm).
 * dx, dy, x, residual: [R, D]; rstd: [R]; gain: [D].
 */
export function rmsNormBackwardInput(
  dx: Tensor,
  dy: Tensor,
  x: Tensor,
  rstd: Tensor,
  gain: Tensor,
  residual?: Tensor,
): void {
  const rows = rowsOf(x), width = widthOf(x);
  expectShape("rmsNormBackwardInput", "dx", dx, x.shape, "float");
  expectShape("rmsNormBackwardInput", "dy", dy, x.shape, "float");
  expectShape("rmsNormBackwardInput", "rstd", rstd, [rows]);
  expectShape("rmsNormBackwardInput", "gain", gain, [width], "float");
  if (residual) expectShape("rmsNormBackwardInput", "residual", residual, x.shape, "float");
  rmsNormBackwardInputRows.run([dx, dy, x, rstd, gain, residual]);
}

const rmsNormBackwardInputRows = rowOperation<
  [dx: Tensor, dy: Tensor, x: Tensor, rstd: Tensor, gain: Tensor, residual?: Tensor]
>({
  name: "rmsNormBackwardInput",
  outputs: 1,
  rows: 2,
  record(variant, dx, dy, x, rstd, gain, residual) {
    const rows = rowsOf(x), width = widthOf(x);
    x.device.dispatch(
      backwardInput[variant],
      { rows, width: variant === "vec4" ? width / 4 : width, epsilon: 0, residual: residual ? 1 : 0 },
      [dx, dy, x, rstd, gain, residual ?? dy], // dy stands in where there is none, and is not read
      lanes(rows, variant === "group" ? 1 : 64),
    );
  },
});

/**
 * The gradient of {@link rmsNorm} with respect to the gain, for one micro-batch and *not* added to anything: the sum over
 * rows of `dy * x * rstd`. dgain: [D]; dy, x: [R, D]; rstd: [R].
 */
export function rmsNormSums(dgain: Tensor, dy: Tensor, x: Tensor, rstd: Tensor): void {
  const rows = rowsOf(x), width = widthOf(x);
  expectShape("rmsNormSums", "dgain", dgain, [width]);
  expectShape("rmsNormSums", "dy", dy, x.shape, "float");
  expectShape("rmsNormSums", "rstd", rstd, [rows]);
  rmsNormSumsRows.run([dgain, dy, x, rstd]);
}

const rmsNormSumsRows = rowOperation<[dgain: Tensor, dy: Tensor, x: Tensor, rstd: Tensor]>({
  name: "rmsNormSums",
  outputs: 1,
  rows: 2,
  record(variant, dgain, dy, x, rstd) {
    const { device } = x;
    const rows = rowsOf(x), width = widthOf(x);
    const columns = variant === "vec4" ? width / 4 : width;
    const { block, blocks } = sumBlocks(variant, rows);
    const partials = blocks === 1 ? dgain : empty(device, [blocks, width], "workspace");
    const kernel = sums[variant === "vec4" ? "vec4" : "plain"];
    device.dispatch(kernel, { rows, width: columns, block }, [partials, dy, x, rstd], lanes(columns * blocks));
    if (blocks === 1) return;
    columnTotals(dgain, partials);
    release(partials); // reused at the earliest by a kernel recorded after these
  },
});
