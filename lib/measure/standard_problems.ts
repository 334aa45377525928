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

/**
 * The standard problems for a device like this one, every operation at least once: small enough for a processor, large enough
 * for a GPU. Activations and parameters are `dtype`; gradients of parameters, statistics and the like f32, as in training.
 */
export function standardProblems({ info }: Gpu, dtype: DType = "f32"): Promise<Observed[]> {
  const [device] = dryDevices(1, info);
  const make: Make = (shape, type = dtype) => empty(device, shape, "workspace", type);
  return observeProblems(device.gpu, () => {
    products(make, info.software ? 512 : 4096);
    rows(make);
    attentions(make, device, info.software ? 4 : 16);
    images(make, info.software ? 4 : 64);
    scans(make, info.software ? 4 : 32);
    updates(make);
  });
}

function products(make: Make, side: number) {
  const square = () => make([side, side]);
  matmul(square(), square(), square());
  matmul(square(), square(), square(), { transposeB: true });
  const gradient = make([side, side], "f32");
  matmul(gradient, square(), square(), { transposeA: true, accumulate: true });
  // A gradient of few weights from many rows.
  const many = () => make([16 * side, side / 4]);
  matmul(make([side / 4, side / 4], "f32"), many(), many(), { transposeA: true, accumulate: true });
}

function rows(make: Make) {
  const R = 2048, D = 1024;
  const wide = () => make([R, D]), twice = () => make([R, 2 * D]), gain = () => make([D]);
  const perRow = () => make([R], "f32"), pairs = () => make([R, 2], "f32"), perColumn = () => make([D], "f32");
  const targets = make([R], "u32"), ids = make([2, R], "u32"), words = 32_000;
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
  rope(wide(), { length: 256, heads: 8, headSize: 64, rowStride: D });
  dropout(wide(), wide(), { rate: 0.1, seed: make([2], "u32"), salt: 1 }, 256);
}

function attentions(make: Make, device: Device, sequences: number) {
  const shapes: AttentionShape[] = [
    { sequences, length: 256, heads: 8, headSize: 64 },
    { sequences, length: 256, heads: 8, kvHeads: 2, headSize: 64 },
    { sequences, length: 128, heads: 4, headSize: 32, causal: false },
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
  hideDocuments(make([sequences, 8, 256, 256]), make([sequences, 256], "u32"), shapes[0]);
  const [, cached] = shapes, before = make([1], "u32"), keys = make([1024, keptWidth(cached)]);
  const next = make([1, qkvWidth(cached)]);
  appendKeys(keys, next, before, cached);
  cachedAttention(make([1, cached.heads * cached.headSize]), next, keys, before, cached);
  // Composed, so that the softmax is seen; the whole is the same problem however it is recorded here.
  for (const shape of shapes) withCandidate(device.gpu, "composed", () => both(shape));
}

function images(make: Make, samples: number) {
  const channels = 64, window = { size: 3, stride: 2, padding: 1 };
  const whole = () => make([samples, 32, 32, channels]), half = () => make([samples, 16, 16, channels]);
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
  const taps = make([samples, 16, 16, channels], "u32");
  maxPool(half(), taps, whole(), window);
  maxPoolBackward(whole(), half(), taps, window);
  averagePool(make([samples, channels]), whole());
  averagePoolBackward(whole(), make([samples, channels]));
}

function scans(make: Make, sequences: number) {
  const length = 256, channels = 512, state = 16, R = sequences * length;
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

function updates(make: Make) {
  const count = 2 ** 21;
  const flat = () => make([count], "f32");
  for (const spec of [sgd({ learningRate: 0.1 }), sgd({ learningRate: 0.1, momentum: 0.9 }), adamw(), lion()]) {
    const copy = make([count]);
    spec.create(flat(), flat(), count, copy.dtype === "f16" ? copy : undefined).step();
  }
  const shapes = [{ start: 0, shape: [256, 128] }],
    [values, moved, half] = ["f32", "f32", undefined].map((dtype) => make([256 * 128], dtype as "f32"));
  muon().create(values, moved, 256 * 128, half.dtype === "f16" ? half : undefined, shapes).step();
  look(make([4], "u32"), flat());
}
