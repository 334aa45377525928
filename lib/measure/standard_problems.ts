/** Problems that are measured on every device, beside those of a model: one call for each, on tensors without memory. */
import type { Device } from "../gpu/device.ts";
import { dryDevices } from "../gpu/dry.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { attention, attentionBackward, type AttentionShape, chooseAttention, qkvWidth } from "../ops/attention.ts";
import { batchNorm, batchNormBackwardInput, batchNormRunning, batchNormSums } from "../ops/batch_norm.ts";
import { addBias, columnSum, columnTotals } from "../ops/bias.ts";
import { appendKeys, cachedAttention, keptWidth } from "../ops/cached_attention.ts";
import { causalConv, causalConvBackwardInput, causalConvOn } from "../ops/causal_conv.ts";
import { type Observed, observeProblems, withCandidate } from "../ops/choice.ts";
import { takeColumns } from "../ops/columns.ts";
import { conv2d, conv2dBackwardInput, conv2dBackwardWeight } from "../ops/conv.ts";
import { hideDocuments } from "../ops/documents.ts";
import { dropout } from "../ops/dropout.ts";
import { add, fill, scale } from "../ops/elementwise.ts";
import { embedding, embeddingBackwardWeight } from "../ops/embedding.ts";
import { look } from "../ops/look.ts";
import { gelu, geluBackward } from "../ops/gelu.ts";
import { layerNorm, layerNormBackwardInput, layerNormSums } from "../ops/layer_norm.ts";
import { crossEntropy, crossEntropyBackward, sum } from "../ops/loss.ts";
import { matmul } from "../ops/matmul.ts";
import { rmsNorm, rmsNormBackwardInput, rmsNormSums } from "../ops/norm.ts";
import { averagePool, averagePoolBackward, maxPool, maxPoolBackward } from "../ops/pool.ts";
import { addRelu, relu, reluBackward } from "../ops/relu.ts";
import { rope } from "../ops/rope.ts";
import {
  scanStatesShape,
  scanSumsShape,
  selectiveScan,
  selectiveScanBackwardInput,
  selectiveScanBackwardWeight,
  selectiveScanOn,
  selectiveScanSums,
} from "../ops/scan.ts";
import { squaredError, squaredErrorBackward } from "../ops/squared_error.ts";
import { swiglu, swigluBackward } from "../ops/swiglu.ts";
import { type DType, empty, type Tensor } from "../tensor.ts";
import { muon } from "../train/muon.ts";
import { adamw, lion, sgd } from "../train/optimizers.ts";

/** Makes tensors that nothing is in: of the element type that is measured, unless another is given. */
type Make = (shape: readonly number[], dtype?: DType) => Tensor;

/** How large the standard problems are. */
interface Sizes {
  /** Rows and columns of square matrices. */
  readonly side: number;
  /** Rows of activations, and their width. */
  readonly rows: number;
  readonly width: number;
  /** Rows of an embedding. */
  readonly words: number;
  /** Sequences that are attended to, their length where they are long, and heads. */
  readonly attended: number;
  readonly length: number;
  readonly heads: number;
  /** Images, the side of one, and its channels. */
  readonly images: number;
  readonly pixels: number;
  readonly channels: number;
  /** Sequences that are scanned, their length, and channels. */
  readonly scanned: number;
  readonly tokens: number;
  readonly inner: number;
  /** Parameters. */
  readonly parameters: number;
}

const large = { rows: 2048, width: 1024, words: 32_000, length: 256, heads: 8, pixels: 32, channels: 64 };
const largeScans = { tokens: 256, inner: 512, parameters: 2 ** 21 };
/** To be timed: small enough for a processor, large enough for a GPU. */
const timed: Readonly<Record<"software" | "hardware", Sizes>> = {
  software: { ...large, ...largeScans, side: 512, attended: 4, images: 4, scanned: 4 },
  hardware: { ...large, ...largeScans, side: 4096, attended: 16, images: 64, scanned: 32 },
};
/** To be computed once: as small as they can be while every candidate that the others have still supports them. */
const small: Sizes = {
  ...{ side: 64, rows: 64, width: 256, words: 100, attended: 1, length: 64, heads: 4 },
  ...{ images: 1, pixels: 8, channels: 16, scanned: 1, tokens: 64, inner: 64, parameters: 2 ** 12 },
};

/** To be computed once, while most kernels need three workgroups or more: the fewest that two axes share. */
const several: Sizes = {
  ...{ side: 80, rows: 192, width: 576, words: 200, attended: 5, length: 64, heads: 4 },
  ...{ images: 3, pixels: 8, channels: 144, scanned: 3, tokens: 64, inner: 144, parameters: 2 ** 12 },
};

/**
 * The standard problems for a device like this one, every operation at least once: of a size to be timed, or `small` ones to be
 * computed once, or `several` of which most kernels need several workgroups. Activations and parameters are `dtype`; gradients of parameters, statistics and the like f32, as in training.
 */
export function standardProblems(
  { info }: Gpu,
  dtype: DType = "f32",
  size: "timed" | "small" | "several" = "timed",
): Promise<Observed[]> {
  const [device] = dryDevices(1, info);
  const make: Make = (shape, type = dtype) => empty(device, shape, "workspace", type);
  const sizes = size === "timed" ? timed[info.software ? "software" : "hardware"] : { small, several }[size];
  return observeProblems(device.gpu, () => {
    products(make, sizes);
    rows(make, sizes);
    attentions(make, device, sizes);
    images(make, sizes);
    scans(make, sizes);
    updates(make, sizes);
  });
}

function products(make: Make, { side }: Sizes) {
  const square = () => make([side, side]);
  matmul(square(), square(), square());
  matmul(square(), square(), square(), { transposeB: true });
  const gradient = make([side, side], "f32");
  matmul(gradient, square(), square(), { transposeA: true, accumulate: true });
  // A gradient of few weights from many rows.
  const many = () => make([16 * side, side / 4]);
  matmul(make([side / 4, side / 4], "f32"), many(), many(), { transposeA: true, accumulate: true });
}

function rows(make: Make, { rows: R, width: D, words, length, heads }: Sizes) {
  const wide = () => make([R, D]), twice = () => make([R, 2 * D]), gain = () => make([D]);
  const perRow = () => make([R], "f32"), pairs = () => make([R, 2], "f32"), perColumn = () => make([D], "f32");
  const targets = make([R], "u32"), ids = make([2, R], "u32");
  rmsNorm(wide(), perRow(), wide(), gain());
  rmsNormBackwardInput(wide(), wide(), wide(), perRow(), gain());
  rmsNormSums(perColumn(), wide(), wide(), perRow());
  layerNorm(wide(), pairs(), wide(), gain(), gain(), 1e-5);
  layerNormBackwardInput(wide(), wide(), wide(), pairs(), gain());
  layerNormSums(perColumn(), perColumn(), wide(), wide(), pairs());
  swiglu(wide(), twice());
  takeColumns(wide(), twice(), D);
  swigluBackward(twice(), wide(), twice());
  crossEntropy(perRow(), perRow(), wide(), targets);
  crossEntropyBackward(wide(), wide(), perRow(), targets, make([1], "f32"));
  squaredError(perRow(), wide(), make([R, D], "f32"));
  squaredErrorBackward(wide(), wide(), make([R, D], "f32"), make([1], "f32"));
  sum(make([1], "f32"), perRow());
  embedding(wide(), ids, make([words, D]));
  embeddingBackwardWeight(make([words, D], "f32"), wide(), ids);
  addBias(wide(), gain());
  columnSum(perColumn(), wide());
  columnTotals(perColumn(), make([16, D], "f32"));
  add(wide(), wide(), wide());
  scale(wide(), wide(), 0.5);
  fill(wide(), 1);
  for (const form of ["erf", "tanh"] as const) {
    gelu(wide(), wide(), form);
    geluBackward(wide(), wide(), wide(), form);
  }
  relu(wide(), wide());
  addRelu(wide(), wide(), wide());
  reluBackward(wide(), wide(), wide());
  rope(wide(), { length, heads, headSize: 64, rowStride: D });
  dropout(wide(), wide(), { rate: 0.1, seed: make([2], "u32"), salt: 1 }, length);
}

function attentions(make: Make, device: Device, { attended: sequences, length, heads }: Sizes) {
  const shapes: AttentionShape[] = [
    { sequences, length, heads, headSize: 64 },
    { sequences, length, heads, kvHeads: 2, headSize: 64 },
    { sequences, length: length / 2, heads: heads / 2, headSize: 32, causal: false },
  ];
  const both = (shape: AttentionShape) => {
    const { length, heads, headSize } = shape;
    const packed = () => make([sequences * length, qkvWidth(shape)]);
    const wide = () => make([sequences * length, heads * headSize]);
    const qkv = packed(), out = wide();
    const keeps = chooseAttention(device.gpu, shape, qkv.dtype, {}).keeps(shape, qkv.dtype);
    const kept = make(keeps.shape, keeps.dtype);
    attention(out, kept, qkv, shape);
    attentionBackward(packed(), wide(), out, qkv, kept, shape);
  };
  hideDocuments(make([sequences, heads, length, length]), make([sequences, length], "u32"), shapes[0]);
  const [, cached] = shapes, before = make([1], "u32"), keys = make([4 * length, keptWidth(cached)]);
  const next = make([1, qkvWidth(cached)]);
  appendKeys(keys, next, before, cached);
  cachedAttention(make([1, cached.heads * cached.headSize]), next, keys, before, cached);
  // Composed, so that the softmax is seen; the whole is the same problem however it is recorded here.
  for (const shape of shapes) withCandidate(device.gpu, "composed", () => both(shape));
}

function images(make: Make, { images: samples, pixels, channels }: Sizes) {
  const window = { size: 3, stride: 2, padding: 1 };
  const image = (side: number, dtype?: DType) => make([samples, side, side, channels], dtype);
  const whole = () => image(pixels), half = () => image(pixels / 2);
  for (const [small, stride] of [[whole, 1], [half, 2]] as const) {
    const options = { stride, padding: 1 };
    conv2d(small(), whole(), make([3, 3, channels, channels]), options);
    conv2dBackwardInput(whole(), small(), make([3, 3, channels, channels]), options);
    conv2dBackwardWeight(make([3, 3, channels, channels], "f32"), small(), whole(), options);
  }
  const perChannel = () => make([channels], "f32"), gain = () => make([channels]);
  const statistics = { mean: perChannel(), rstd: perChannel() };
  const running = { mean: perChannel(), variance: perChannel() };
  batchNorm(whole(), statistics, running, whole(), gain(), gain());
  batchNormRunning(whole(), running, whole(), gain(), gain());
  batchNormSums(perChannel(), perChannel(), whole(), whole(), statistics, gain(), gain());
  batchNormBackwardInput(whole(), whole(), whole(), statistics, gain(), gain(), perChannel(), perChannel());
  const taps = image(pixels / 2, "u32");
  maxPool(half(), taps, whole(), window);
  maxPoolBackward(whole(), half(), taps, window);
  averagePool(make([samples, channels]), whole());
  averagePoolBackward(whole(), make([samples, channels]));
}

function scans(make: Make, { scanned: sequences, tokens: length, inner: channels }: Sizes) {
  const state = 16, R = sequences * length;
  const wide = () => make([R, channels]), twice = () => make([R, 2 * channels]);
  const projection = () => make([R, 16 + 2 * state]);
  const scan = { x: wide(), dtRaw: wide(), projection: projection(), gate: twice() };
  const parameters = (type?: DType) => ({
    aLog: make([channels, state], type),
    d: make([channels], type),
    dtBias: make([channels], type),
  });
  const states = make(scanStatesShape(R, length, channels, state), "f32");
  const sums = make(scanSumsShape(R, length, channels, state), "f32");
  selectiveScan(wide(), states, scan, parameters(), length);
  const dscan = twice();
  for (const left of [{ sums }, { dscan }]) {
    selectiveScanBackwardInput(wide(), projection(), left, states, scan, parameters(), length);
  }
  selectiveScanSums(sums, { ...scan, dscan }, parameters(), length);
  selectiveScanBackwardWeight(parameters("f32"), sums);
  causalConv(wide(), twice(), make([channels, 4]), make([channels]), length);
  const next = { x: make([1, channels]), dtRaw: make([1, channels]), gate: make([1, 2 * channels]) };
  const projected = make([1, 16 + 2 * state]), before = make([1], "u32");
  causalConvOn(next.x, make([channels, 4], "f32"), next.gate, make([channels, 4]), make([channels]), before);
  const now = make([state / 4, channels, 4], "f32");
  selectiveScanOn(make([1, channels]), now, { ...next, projection: projected }, parameters(), before);
  const dweight = make([sequences, channels * 4], "f32"), dbias = make([sequences, channels], "f32");
  causalConvBackwardInput(twice(), dweight, dbias, wide(), make([channels, 4]), make([channels]), length);
}

function updates(make: Make, { parameters: count, length }: Sizes) {
  const flat = () => make([count], "f32");
  for (const spec of [sgd({ learningRate: 0.1 }), sgd({ learningRate: 0.1, momentum: 0.9 }), adamw(), lion()]) {
    const copy = make([count]);
    spec.create(flat(), flat(), count, copy.dtype === "f16" ? copy : undefined).step();
  }
  const matrix = [length, length / 2], size = length * length / 2, shapes = [{ start: 0, shape: matrix }];
  const [values, moved, half] = ["f32", "f32", undefined].map((dtype) => make([size], dtype as "f32"));
  muon().create(values, moved, size, half.dtype === "f16" ? half : undefined, shapes).step();
  look(make([4], "u32"), flat());
}
