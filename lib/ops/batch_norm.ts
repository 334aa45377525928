/** BatchNorm over the rows of a micro-batch, with the gradients of its two halves. */
import type { Device } from "../gpu/device.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowOperation, type RowVariant } from "./variants.ts";

/** Statistics of the columns of one micro-batch, made by {@link batchNorm} for its backward; both [D]. */
export interface ColumnStatistics {
  /** Means. */
  readonly mean: Tensor;
  /** Reciprocals of the deviations. */
  readonly rstd: Tensor;
}

/** What {@link batchNorm} keeps up to date over the micro-batches, for use after training; both [D]. */
export interface RunningStatistics {
  /** Means. */
  readonly mean: Tensor;
  /** Unbiased variances. */
  readonly variance: Tensor;
}

/** What a {@link batchNorm} and its backward are made of. */
export interface BatchNormOptions {
  /** Whether y is `max(y, 0)`, as a ReLU would make it. The backward sees where it was 0 from x. */
  readonly relu?: boolean;
  /** What keeps the reciprocal deviation of a constant column finite; 1e-5 by default, as in PyTorch. */
  readonly epsilon?: number;
  /** How far the running statistics move towards each micro-batch's; 0.1 by default, as in PyTorch. */
  readonly momentum?: number;
}

const byWidth = (entry: string, constants = {}) => ({
  1: kernel("batch_norm", entry, constants),
  4: kernel("batch_norm", `${entry}4`, constants),
});
const kernelsFor = (RELU: 0 | 1) => ({
  forward: byWidth("forward", { RELU }),
  products: byWidth("products", { RELU }),
  backward: byWidth("backward", { RELU }),
});
const moments = byWidth("moments"), plain = kernelsFor(0), withRelu = kernelsFor(1);
const runningKernel = kernel("batch_norm", "running");
const statisticsKernel = kernel("batch_norm", "statistics");
const gatherKernel = kernel("batch_norm", "gather");

/**
 * `y = gain * (x - mean) * rstd + bias`, `rstd = 1 / sqrt(variance + epsilon)` over each column (Ioffe, Szegedy, arXiv 1502.03167); for
 * images with the channel as last axis this is BatchNorm2d. Writes the columns' mean and rstd to `statistics`, and moves the
 * running ones by `momentum` to this mean and variance (the unbiased one, as in PyTorch).
 * y, x: [R, D]; all others: [D].
 */
export function batchNorm(
  y: Tensor,
  statistics: ColumnStatistics,
  running: RunningStatistics,
  x: Tensor,
  gain: Tensor,
  bias: Tensor,
  options: BatchNormOptions = {},
): void {
  const { mean, rstd } = statistics;
  checkShapes("batchNorm", { x, y }, { "the mean": mean, "the rstd": rstd, ...named(running) }, { gain, bias });
  batchNormRows.run([y, mean, rstd, running.mean, running.variance, x, gain, bias, options]);
}

const batchNormRows = rowOperation<
  [
    ...[y: Tensor, mean: Tensor, rstd: Tensor, runningMean: Tensor, runningVariance: Tensor],
    ...[x: Tensor, gain: Tensor, bias: Tensor, options: BatchNormOptions],
  ]
>({
  name: "batchNorm",
  outputs: 5,
  rows: 0,
  ungrouped: true,
  bytes: ([y, , , , , x]) => 2 * x.bytes + y.bytes, // read for the statistics, and again
  record(variant, y, mean, rstd, runningMean, runningVariance, x, gain, bias, options) {
    const { relu = false, epsilon = 1e-5, momentum = 0.1 } = options;
    const rows = rowsOf(x), width = widthOf(x);
    const { device } = x;
    const { block, blocks } = blocksOf(variant, device, rows, width);
    const means = empty(device, [blocks, width], "workspace"), squares = empty(device, [blocks, width], "workspace");
    down(variant, moments, [means, squares, x], rows, width, block);
    device.dispatch(
      statisticsKernel,
      { rows, width, block, blocks, epsilon, momentum },
      [mean, rstd, runningMean, runningVariance, means, squares],
      lanes(width),
    );
    release(means, squares); // reused at the earliest by a kernel recorded after these
    down(variant, (relu ? withRelu : plain).forward, [y, x, mean, rstd, gain, bias], rows, width);
  },
});

/**
 * {@link batchNorm} after training, or between its steps: by the running statistics, which stay what they are, in place of the
 * micro-batch's. y, x: [R, D]; all others: [D]; of the options, `momentum` says nothing here.
 */
export function batchNormRunning(
  y: Tensor,
  running: RunningStatistics,
  x: Tensor,
  gain: Tensor,
  bias: Tensor,
  options: BatchNormOptions = {},
): void {
  checkShapes("batchNormRunning", { x, y }, named(running), { gain, bias });
  runningRows.run([y, running.mean, running.variance, x, gain, bias, options]);
}

const runningRows = rowOperation<
  [
    ...[y: Tensor, mean: Tensor, variance: Tensor, x: Tensor],
    ...[gain: Tensor, bias: Tensor, options: BatchNormOptions],
  ]
>({
  name: "batchNormRunning",
  outputs: 1,
  rows: 0,
  ungrouped: true,
  record(variant, y, mean, variance, x, gain, bias, { relu = false, epsilon = 1e-5 }) {
    const rows = rowsOf(x), width = widthOf(x), { device } = x;
    const rstd = empty(device, [width], "workspace");
    const parameters = { rows, width, block: 0, blocks: 0, epsilon, momentum: 0 };
    device.dispatch(runningKernel, parameters, [rstd, variance], lanes(width));
    down(variant, (relu ? withRelu : plain).forward, [y, x, mean, rstd, gain, bias], rows, width);
    release(rstd);
  },
});

/**
 * The gradients of {@link batchNorm} with respect to gain and bias, for one micro-batch and *not* added to anything: the
 * input's gradient is made of them, so they are known before W. dgain, dbias, gain, bias: [D]; dy, x: [R, D].
 */
export function batchNormSums(
  dgain: Tensor,
  dbias: Tensor,
  dy: Tensor,
  x: Tensor,
  { mean, rstd }: ColumnStatistics,
  gain: Tensor,
  bias: Tensor,
  options: BatchNormOptions = {},
): void {
  checkShapes("batchNormSums", { x, dy }, { dgain, dbias, mean, rstd }, { gain, bias });
  sumsRows.run([dgain, dbias, dy, x, mean, rstd, gain, bias, options]);
}

const sumsRows = rowOperation<
  [
    ...[dgain: Tensor, dbias: Tensor, dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor],
    ...[gain: Tensor, bias: Tensor, options: BatchNormOptions],
  ]
>({
  name: "batchNormSums",
  outputs: 2,
  rows: 3,
  ungrouped: true,
  record(variant, dgain, dbias, dy, x, mean, rstd, gain, bias, { relu = false }) {
    const rows = rowsOf(x), width = widthOf(x);
    const { device } = x;
    const { block, blocks } = blocksOf(variant, device, rows, width);
    const gains = empty(device, [blocks, width], "workspace"), biases = empty(device, [blocks, width], "workspace");
    const views = [gains, biases, mean, rstd, dy, x, gain, bias];
    down(variant, (relu ? withRelu : plain).products, views, rows, width, block);
    const parameters = { rows, width, block, blocks, epsilon: 0, momentum: 0 };
    device.dispatch(gatherKernel, parameters, [dgain, dbias, gains, biases], lanes(width));
    release(gains, biases);
  },
});

/**
 * The gradient of {@link batchNorm} with respect to x, mean and variance being functions of x:
 * `dx = gain * rstd * (dy - dbias / R - (x - mean) * rstd * dgain / R)`, with what {@link batchNormSums} made of dy,
 * which counts as 0 where a ReLU let nothing through.
 * dx, dy, x: [R, D]; all others: [D].
 */
export function batchNormBackwardInput(
  dx: Tensor,
  dy: Tensor,
  x: Tensor,
  { mean, rstd }: ColumnStatistics,
  gain: Tensor,
  bias: Tensor,
  dgain: Tensor,
  dbias: Tensor,
  options: BatchNormOptions = {},
): void {
  checkShapes("batchNormBackwardInput", { x, dx, dy }, { mean, rstd, dgain, dbias }, { gain, bias });
  backwardRows.run([dx, dy, mean, rstd, gain, dgain, dbias, x, bias, options]);
}

const backwardRows = rowOperation<
  [
    ...[dx: Tensor, dy: Tensor, mean: Tensor, rstd: Tensor, gain: Tensor, dgain: Tensor, dbias: Tensor],
    ...[x: Tensor, bias: Tensor, options: BatchNormOptions],
  ]
>({
  name: "batchNormBackwardInput",
  outputs: 1,
  rows: 0,
  ungrouped: true,
  record(variant, ...problem) {
    const views = problem.slice(0, 9) as Tensor[], { relu = false } = problem[9];
    const [dx] = views;
    down(variant, (relu ? withRelu : plain).backward, views, rowsOf(dx), widthOf(dx));
  },
});

/** Checks what is as large as x, what is one f32 number a column, and what is one number a column in f16 or f32. */
function checkShapes(
  operation: string,
  like: Readonly<Record<"x", Tensor> & Record<string, Tensor>>,
  statistics: Readonly<Record<string, Tensor>>,
  weights: Readonly<Record<string, Tensor>>,
): void {
  const { x: { shape } } = like, columns = [widthOf(like.x)];
  for (const [name, tensor] of Object.entries(like)) expectShape(operation, name, tensor, shape, "float");
  for (const [name, tensor] of Object.entries(statistics)) expectShape(operation, name, tensor, columns);
  for (const [name, tensor] of Object.entries(weights)) expectShape(operation, name, tensor, columns, "float");
}

/** Running statistics by what messages call them. */
const named = ({ mean, variance }: RunningStatistics) => ({
  "the running mean": mean,
  "the running variance": variance,
});

/** Records a kernel whose invocations each go down a block of rows of one column, or of four neighbouring ones. */
function down(
  variant: RowVariant,
  kernels: Record<1 | 4, Kernel>,
  views: readonly Tensor[],
  rows: number,
  width: number,
  block = blocksOf(variant, views[0].device, rows, width, 8).block,
) {
  const [{ device }] = views;
  const perLane = perLaneOf(variant);
  const blocks = Math.ceil(rows / block), columns = width / perLane;
  const parameters = { rows, width: columns, block, blocks, epsilon: 0, momentum: 0 };
  device.dispatch(kernels[perLane], parameters, views, lanes(columns * blocks));
}

/** A GPU, like a processor, is served best by four columns at a time where the width allows it. */
function perLaneOf(variant: RowVariant): 1 | 4 {
  return variant === "vec4" ? 4 : 1;
}

/**
 * How the rows of a column are dealt out. On a GPU to as many invocations as there can be, in blocks of at least `least` rows, but
 * where their sums have to be merged, one after the other, to 256 at most; on a processor to some hundred invocations in all.
 */
function blocksOf(variant: RowVariant, device: Device, rows: number, width: number, least?: number) {
  const inAll = rows * width / perLaneOf(variant);
  const most = least === undefined ? rows / 256 : rows / 65_535;
  const block = device.gpu.info.software
    ? Math.max(32, Math.ceil(inAll / 512))
    : Math.max(least ?? 32, Math.ceil(most));
  return { block, blocks: Math.ceil(rows / block) };
}
