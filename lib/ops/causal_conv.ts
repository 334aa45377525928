/** Mamba's causal depthwise convolution with its silu: forward, and its two backward halves. */
import { UserError } from "../errors.ts";
import { kernel } from "../gpu/kernel.ts";
import { release, type Tensor, view, writeArray } from "../tensor.ts";
import { columnSum } from "./bias.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { singleOperation } from "./variants.ts";

const forward = kernel("causal_conv", "forward");
const forwardOn = kernel("causal_conv", "forward_on");
const backward = kernel("causal_conv", "backward");

/** Taps of the convolution: a token sees itself and the three before it. */
export const convTaps = 4;

/**
 * `y[t] = silu(bias + sum over k of weight[k] * x[t - 3 + k])` for each channel and sequence by itself (Gu, Dao, "Mamba",
 * 2023, section 3.4). y: [R, C], its rows the tokens of R / length sequences; x: [R, C or more], of which the first C
 * columns are taken; weight: [C, 4]; bias: [C].
 */
export function causalConv(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, length: number): void {
  checkShapes("causalConv", y, x, weight, bias, length);
  forwardOperation.run([y, x, weight, bias, length]);
}

const forwardOperation = singleOperation<[y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, length: number]>({
  name: "causalConv",
  kernel: "causal_conv:forward",
  outputs: 1,
  bytes: ([y, , weight, bias]) => 2 * y.bytes + weight.bytes + bias.bytes,
  record(y, x, weight, bias, length) {
    const channels = widthOf(y), sequences = rowsOf(y) / length;
    // Each block loads three tokens of the one before it; a GPU has more invocations than there are channels.
    const block = x.device.gpu.info.software ? 64 : 16;
    const grid = lanes(sequences * Math.ceil(length / block) * channels);
    const parameters = { sequences, length, channels, stride: widthOf(x), block };
    x.device.dispatch(forward, parameters, [y, x, weight, bias], grid);
  },
});

/**
 * {@link causalConv} of the next R tokens of one sequence. last: f32 [C, 4], the last inputs of the `before` tokens before them, which
 * it reads unless there are none and leaves for the next; before: u32 [1].
 */
export function causalConvOn(
  y: Tensor,
  last: Tensor,
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  before: Tensor,
): void {
  checkShapes("causalConvOn", y, x, weight, bias, rowsOf(y));
  expectShape("causalConvOn", "last", last, [widthOf(y), convTaps]);
  expectShape("causalConvOn", "before", before, [1], "u32");
  onOperation.run([y, last, x, weight, bias, before]);
}

const onOperation = singleOperation<
  [y: Tensor, last: Tensor, x: Tensor, weight: Tensor, bias: Tensor, before: Tensor]
>({
  name: "causalConvOn",
  kernel: "causal_conv:forward_on",
  outputs: 2,
  record(y, last, x, weight, bias, before) {
    const channels = widthOf(y), length = rowsOf(y);
    const parameters = { sequences: 1, length, channels, stride: widthOf(x), block: length };
    x.device.dispatch(forwardOn, parameters, [y, last, x, weight, bias, before], lanes(channels));
  },
  prepare: ([, , , , , before]) => writeArray(before, Uint32Array.of(1)),
});

/**
 * I of {@link causalConv}: from `dy`, the gradient with respect to y, makes x into that with respect to x, in place, and
 * writes to `dweight` and `dbias` the sums over each sequence that W needs: they fall out of the same loop, five of its some
 * thirty operations, and to keep them takes less memory than the x and dy of three tokens. A W that made them would repeat the rest of the
 * loop but for x's gradient, and keep all x and dy. dy: [R, C]; x: [R, C or more], beyond C left alone;
 * weight: [C, 4]; bias: [C]; dweight: [R / length, C * 4]; dbias: [R / length, C].
 */
export function causalConvBackwardInput(
  x: Tensor,
  dweight: Tensor,
  dbias: Tensor,
  dy: Tensor,
  weight: Tensor,
  bias: Tensor,
  length: number,
): void {
  const channels = widthOf(dy);
  const sequences = checkShapes("causalConvBackwardInput", dy, x, weight, bias, length);
  expectShape("causalConvBackwardInput", "dweight", dweight, [sequences, channels * convTaps]);
  expectShape("causalConvBackwardInput", "dbias", dbias, [sequences, channels]);
  backwardOperation.run([x, dweight, dbias, dy, weight, bias, length]);
}

const backwardOperation = singleOperation<
  [x: Tensor, dweight: Tensor, dbias: Tensor, dy: Tensor, weight: Tensor, bias: Tensor, length: number]
>({
  name: "causalConvBackwardInput",
  kernel: "causal_conv:backward",
  outputs: 3,
  bytes: ([, dweight, dbias, dy]) => 3 * dy.bytes + 2 * dweight.bytes + dbias.bytes,
  record(x, dweight, dbias, dy, weight, bias, length) {
    const channels = widthOf(dy), sequences = rowsOf(dy) / length;
    x.device.dispatch(
      backward,
      { sequences, length, channels, stride: widthOf(x), block: 0 },
      [x, dweight, dbias, dy, weight, bias],
      lanes(sequences * channels),
    );
  },
});

/**
 * W of {@link causalConv}: adds the sums that I left of any number S of sequences to the gradients.
 * dweight: [C, 4]; dbias: [C]; dweightSums: [S, C * 4]; dbiasSums: [S, C].
 */
export function causalConvBackwardWeight(
  dweight: Tensor,
  dbias: Tensor,
  dweightSums: Tensor,
  dbiasSums: Tensor,
): void {
  const flat = view(dweight, [widthOf(dweightSums)]);
  columnSum(flat, dweightSums);
  release(flat);
  columnSum(dbias, dbiasSums);
}

/** The number of sequences. */
function checkShapes(operation: string, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, length: number): number {
  const rows = rowsOf(y), channels = widthOf(y);
  if (rows % length !== 0) {
    throw new UserError(`${operation}: [${y.shape}] is no number of sequences of ${length} tokens`);
  }
  if (rowsOf(x) !== rows || widthOf(x) < channels) {
    throw new UserError(`${operation}: x is [${x.shape}] where [${rows},${channels}] or wider is needed`);
  }
  expectShape(operation, "y", y, y.shape, "float");
  expectShape(operation, "x", x, x.shape, "float");
  expectShape(operation, "weight", weight, [channels, convTaps], "float");
  expectShape(operation, "bias", bias, [channels], "float");
  return rows / length;
}
