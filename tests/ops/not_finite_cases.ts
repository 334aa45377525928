/** Every operation once more, as tests/ops/not_finite.test.ts needs it: its inputs by name, and its outputs in float64. */
import { attention, attentionBackward, chooseAttention, qkvWidth } from "../../lib/ops/attention.ts";
import { batchNorm, batchNormBackwardInput, batchNormRunning, batchNormSums } from "../../lib/ops/batch_norm.ts";
import { addBias, columnSum, columnTotals } from "../../lib/ops/bias.ts";
import { causalConv, causalConvBackwardInput, causalConvOn } from "../../lib/ops/causal_conv.ts";
import { appendKeys, cachedAttention, keptWidth } from "../../lib/ops/cached_attention.ts";
import { takeColumns } from "../../lib/ops/columns.ts";
import { conv2d, conv2dBackwardInput, conv2dBackwardWeight } from "../../lib/ops/conv.ts";
import { hideDocuments } from "../../lib/ops/documents.ts";
import { dropout } from "../../lib/ops/dropout.ts";
import { add, fill, scale } from "../../lib/ops/elementwise.ts";
import { embedding, embeddingBackwardWeight, packIds } from "../../lib/ops/embedding.ts";
import { gelu, geluBackward } from "../../lib/ops/gelu.ts";
import { layerNorm, layerNormBackwardInput, layerNormSums } from "../../lib/ops/layer_norm.ts";
import { crossEntropy, crossEntropyBackward, sum } from "../../lib/ops/loss.ts";
import { matmul } from "../../lib/ops/matmul.ts";
import { rmsNorm, rmsNormBackwardInput, rmsNormSums } from "../../lib/ops/norm.ts";
import { averagePool, averagePoolBackward, maxPool, maxPoolBackward } from "../../lib/ops/pool.ts";
import { addRelu, relu, reluBackward } from "../../lib/ops/relu.ts";
import { rope, ropeBackward } from "../../lib/ops/rope.ts";
import { squaredError, squaredErrorBackward } from "../../lib/ops/squared_error.ts";
import {
  scanStatesShape,
  scanSumsShape,
  selectiveScan,
  selectiveScanBackwardInput,
  selectiveScanBackwardWeight,
  selectiveScanOn,
  selectiveScanSums,
} from "../../lib/ops/scan.ts";
import { swiglu, swigluBackward } from "../../lib/ops/swiglu.ts";
import { empty, release, sizeOf, type Tensor } from "../../lib/tensor.ts";
import { ignored } from "../../lib/train/data.ts";
import * as attentions from "../reference/attention.ts";
import * as batchNorms from "../reference/batch_norm.ts";
import * as biases from "../reference/bias.ts";
import * as causalConvs from "../reference/causal_conv.ts";
import * as convs from "../reference/conv.ts";
import * as drops from "../reference/dropout.ts";
import * as embeddings from "../reference/embedding.ts";
import * as gelus from "../reference/gelu.ts";
import * as layerNorms from "../reference/layer_norm.ts";
import { project, transpose } from "../reference/linear.ts";
import * as losses from "../reference/loss.ts";
import * as norms from "../reference/norm.ts";
import * as pools from "../reference/pool.ts";
import * as ropes from "../reference/rope.ts";
import * as scans from "../reference/scan.ts";
import * as swiglus from "../reference/swiglu.ts";
import { normal, tokens } from "./support.ts";

/** Numbers by the name of a tensor. */
export type Numbers = Readonly<Record<string, ArrayLike<number>>>;

/** What a tensor holds before, and whether it may be f16; u32 holds what is not planted in. */
export interface Input {
  readonly shape: readonly number[];
  readonly data: Float32Array | Uint32Array;
  readonly half: boolean;
  /** Where to plant besides at random: in each part of what is packed. */
  readonly places?: readonly number[];
}

/** An operation, or a few that belong together, and what they make of their inputs. */
export interface Case {
  readonly name: string;
  readonly inputs: Readonly<Record<string, Input>>;
  /**
   * What is written and not read, by name; what is read and written is among the inputs alone. Names that begin with d are of
   * gradients.
   */
  readonly outputs: Readonly<Record<string, Pick<Input, "shape" | "half">>>;
  record(tensors: Readonly<Record<string, Tensor>>): void;
  /** All that is written, in float64. */
  expected(inputs: Numbers): Numbers;
  /**
   * Which elements of an output may be no numbers either, after `at` in the input `planted`: those that take it times an
   * exact 0, which an operation may as well leave out.
   */
  may?(planted: string, at: number): (output: string, i: number) => boolean;
}

let seeds = 0;
const floats = (...shape: number[]): Input => ({ shape, data: normal(sizeOf(shape), ++seeds), half: true });
/** Parameters' gradients, statistics and the like, which are f32 whatever the activations are. */
const singles = (...shape: number[]): Input => ({ ...floats(...shape), half: false });
const words = (data: Uint32Array, shape = [data.length]): Input => ({ shape, data, half: false });
const out = (...shape: number[]) => ({ shape, half: true });
const out32 = (...shape: number[]) => ({ shape, half: false });

/** Whether ReLU lets the gradient at x through, as PyTorch's: not where x <= 0, so that it does where x is NaN. */
const passed = (x: ArrayLike<number>, dy: ArrayLike<number>) =>
  Float64Array.from(x, (value, i) => value <= 0 ? 0 : dy[i]);
const clipped = (x: ArrayLike<number>) => passed(x, x);
const plus = (a: ArrayLike<number>, b: ArrayLike<number>) => Float64Array.from(a, (value, i) => value + b[i]);

/** Rows so wide that each invocation of a workgroup takes several elements, and rows for the kernels without vec4s. */
const rows = 5;
const rowCases = [132, 5].flatMap((width): Case[] => {
  const x = floats(rows, width), dy = floats(rows, width), gain = floats(width), bias = floats(width);
  const targets = tokens(rows, width, 7);
  targets[1] = ignored;
  const seed = words(Uint32Array.of(9, 1)), mask = { rate: 0.4, salt: 99 };
  const ids = tokens(rows, 3, 8);
  const of = `of rows of ${width}`;
  return [
    {
      name: `add() and scale() ${of}`,
      inputs: { a: x, b: dy },
      outputs: { sum: out(rows, width), scaled: out(rows, width) },
      record({ sum, scaled, a, b }) {
        add(sum, a, b);
        scale(scaled, a, -0.5);
      },
      expected: ({ a, b }) => ({ sum: plus(a, b), scaled: Float64Array.from(a, (value) => -0.5 * value) }),
    },
    {
      name: `addBias(), columnSum() and columnTotals() ${of}`,
      inputs: { y: x, bias, dbias: singles(width), partials: singles(rows, width) },
      outputs: { totals: out32(width) },
      record({ y, bias, dbias, totals, partials }) {
        columnSum(dbias, y);
        columnTotals(totals, partials);
        addBias(y, bias);
      },
      expected: ({ y, bias, dbias, partials }) => ({
        y: biases.addBias(y, bias),
        dbias: plus(dbias, biases.columnSum(y, width)),
        totals: biases.columnSum(partials, width),
      }),
    },
    {
      name: `takeColumns() ${of}`,
      inputs: { x },
      outputs: { taken: out(rows, width - 2) },
      record: ({ taken, x }) => takeColumns(taken, x, 1),
      expected: ({ x }) => ({ taken: Float64Array.from(x).filter((_, i) => ![0, width - 1].includes(i % width)) }),
    },
    {
      name: `columnSum() ${of}, in blocks of rows`,
      inputs: { dy: floats(70, width), dbias: singles(width) },
      outputs: {},
      record: ({ dbias, dy }) => columnSum(dbias, dy),
      expected: ({ dbias, dy }) => ({ dbias: plus(dbias, biases.columnSum(dy, width)) }),
    },
    {
      name: `dropout() ${of}`,
      inputs: { x, seed },
      outputs: { y: out(rows, width) },
      record: ({ y, x, seed }) => dropout(y, x, { ...mask, seed }, rows),
      expected: ({ x }) => ({ y: drops.dropout(x, width, { ...mask, seed: 9, firstRow: rows }) }),
    },
    {
      name: `embedding() and its gradient ${of}`,
      inputs: { table: floats(3, width), dy, ids: words(packIds(ids), [2, rows]), dTable: singles(3, width) },
      outputs: { y: out(rows, width) },
      record({ y, ids, table, dTable, dy }) {
        embedding(y, ids, table);
        embeddingBackwardWeight(dTable, dy, ids);
      },
      expected: ({ table, dTable, dy }) => ({
        y: embeddings.embedding(ids, table, width),
        dTable: plus(dTable, embeddings.embeddingBackward(dy, ids, 3, width)),
      }),
    },
    {
      name: `rmsNorm() and its gradients ${of}`,
      inputs: { x, gain, dy, residual: floats(rows, width) },
      outputs: { y: out(rows, width), rstd: out32(rows), dx: out(rows, width), dgain: out32(width) },
      record({ y, rstd, x, gain, dx, dy, residual, dgain }) {
        rmsNorm(y, rstd, x, gain);
        rmsNormBackwardInput(dx, dy, x, rstd, gain, residual);
        rmsNormSums(dgain, dy, x, rstd);
      },
      expected({ x: given, gain, dy, residual }) {
        // A row whose squares are infinite has no deviation.
        const x = Array.from(given, (value) => Number.isFinite(value) ? value : NaN);
        const { y, rstd } = norms.rmsNorm(x, gain), { dx, dgain } = norms.rmsNormBackward(dy, x, rstd, gain);
        return { y, rstd, dx: plus(dx, residual), dgain };
      },
    },
    {
      name: `layerNorm() and its gradients ${of}`,
      inputs: { x, gain, bias, dy },
      outputs: {
        ...{ y: out(rows, width), statistics: out32(rows, 2), dx: out(rows, width) },
        ...{ dgain: out32(width), dbias: out32(width) },
      },
      record({ y, statistics, x, gain, bias, dx, dy, dgain, dbias }) {
        layerNorm(y, statistics, x, gain, bias, 1e-5);
        layerNormBackwardInput(dx, dy, x, statistics, gain);
        layerNormSums(dgain, dbias, dy, x, statistics);
      },
      expected({ x, gain, bias, dy }) {
        const { y, statistics } = layerNorms.layerNorm(x, gain, bias, 1e-5);
        return { y, statistics, ...layerNorms.layerNormBackward(dy, x, statistics, gain) };
      },
    },
    {
      name: `crossEntropy() and its gradient ${of}`,
      inputs: {
        logits: x,
        targets: words(targets),
        scale: { ...words(targets), shape: [1], data: Float32Array.of(2) },
      },
      outputs: { losses: out32(rows), logSumExp: out32(rows), dlogits: out(rows, width) },
      record({ losses, logSumExp, logits, targets, dlogits, scale }) {
        crossEntropy(losses, logSumExp, logits, targets);
        crossEntropyBackward(dlogits, logits, logSumExp, targets, scale);
      },
      expected: ({ logits, scale }) => ({
        ...losses.crossEntropy(logits, targets, width),
        dlogits: losses.crossEntropyBackward(logits, targets, width, scale[0]),
      }),
    },
    {
      name: `crossEntropy() with smoothing and its gradient ${of}`,
      inputs: { logits: x, targets: words(targets), scale: singles(1) },
      outputs: { losses: out32(rows), logSumExp: out32(rows), dlogits: out(rows, width) },
      record({ losses, logSumExp, logits, targets, dlogits, scale }) {
        crossEntropy(losses, logSumExp, logits, targets, { smoothing: 0.1 });
        crossEntropyBackward(dlogits, logits, logSumExp, targets, scale, { smoothing: 0.1 });
      },
      expected: ({ logits, scale }) => ({
        ...losses.crossEntropy(logits, targets, width, { smoothing: 0.1 }),
        dlogits: losses.crossEntropyBackward(logits, targets, width, scale[0], { smoothing: 0.1 }),
      }),
    },
    {
      name: `squaredError() and its gradient ${of}`,
      inputs: { y: x, targets: singles(rows, width), scale: singles(1) },
      outputs: { losses: out32(rows), dy: out(rows, width) },
      record({ losses, y, targets, dy, scale }) {
        squaredError(losses, y, targets);
        squaredErrorBackward(dy, y, targets, scale);
      },
      expected: ({ y, targets, scale }) => ({
        losses: losses.squaredError(y, targets, width),
        dy: losses.squaredErrorBackward(y, targets, scale[0]),
      }),
    },
    {
      name: `sum() ${of}`,
      inputs: { x: singles(rows, width), total: singles(1) },
      outputs: {},
      record: ({ total, x }) => sum(total, x, { accumulate: true }),
      expected: ({ total, x }) => ({ total: [Array.from(x).reduce((all, value) => all + value, total[0])] }),
    },
    {
      name: `swiglu() and its gradient ${of}`,
      inputs: { gateUp: { ...floats(rows, 2 * width), places: [3, 3 + width] }, dy },
      outputs: { y: out(rows, width), dGateUp: out(rows, 2 * width) },
      record({ y, gateUp, dGateUp, dy }) {
        swiglu(y, gateUp);
        swigluBackward(dGateUp, dy, gateUp);
      },
      expected: ({ gateUp, dy }) => ({
        y: swiglus.swiglu(gateUp, width),
        dGateUp: swiglus.swigluBackward(dy, gateUp, width),
      }),
    },
    {
      name: `relu(), addRelu() and their gradient ${of}`,
      inputs: { a: x, b: floats(rows, width), dy, y: floats(rows, width) },
      outputs: { positive: out(rows, width), sum: out(rows, width), dx: out(rows, width) },
      record({ positive, sum, a, b, dx, dy, y }) {
        relu(positive, a);
        addRelu(sum, a, b);
        reluBackward(dx, dy, y);
      },
      expected: ({ a, b, dy, y }) => ({ positive: clipped(a), sum: clipped(plus(a, b)), dx: passed(y, dy) }),
    },
    ...(["erf", "tanh"] as const).map((form): Case => ({
      name: `gelu() by ${form} and its gradient ${of}`,
      inputs: { x, dy },
      outputs: { y: out(rows, width), dx: out(rows, width) },
      record({ y, x, dx, dy }) {
        gelu(y, x, form);
        geluBackward(dx, dy, x, form);
      },
      expected: ({ x, dy }) => ({ y: gelus.gelu(x, form), dx: gelus.geluBackward(dy, x, form) }),
    })),
  ];
});

/** Several blocks of rows, and means away from 0. */
const batchNormCases: Case[] = [8, 5].flatMap((width) =>
  [false, true].map((withRelu): Case => ({
    name: `batchNorm()${withRelu ? " with ReLU" : ""} and its gradients of ${width} columns`,
    inputs: {
      ...{ x: floats(70, width), gain: floats(width), bias: floats(width), dy: floats(70, width) },
      ...{ runningMean: singles(width), runningVariance: singles(width) },
    },
    outputs: {
      ...{ y: out(70, width), mean: out32(width), rstd: out32(width), dx: out(70, width) },
      ...{ dgain: out32(width), dbias: out32(width) },
    },
    record({ y, mean, rstd, runningMean, runningVariance, x, gain, bias, dgain, dbias, dx, dy }) {
      const options = { relu: withRelu }, running = { mean: runningMean, variance: runningVariance };
      batchNorm(y, { mean, rstd }, running, x, gain, bias, options);
      batchNormSums(dgain, dbias, dy, x, { mean, rstd }, gain, bias, options);
      batchNormBackwardInput(dx, dy, x, { mean, rstd }, gain, bias, dgain, dbias, options);
    },
    expected({ x, gain, bias, dy, runningMean, runningVariance }) {
      const batch = batchNorms.batchNorm(x, gain, bias), { y, mean, rstd } = batch;
      const running = batchNorms.updateRunning({ mean: runningMean, variance: runningVariance }, batch, 70);
      return {
        ...{ y: withRelu ? clipped(y) : y, mean, rstd },
        ...{ runningMean: running.mean, runningVariance: running.variance },
        ...batchNorms.batchNormBackward(withRelu ? passed(y, dy) : dy, x, gain),
      };
    },
  }))
);

/** By statistics that are given; those that are not finite may make their column NaN where the reference has an infinity. */
const batchNormRunningCases: Case[] = [8, 5].flatMap((width) =>
  [false, true].map((withRelu): Case => ({
    name: `batchNormRunning()${withRelu ? " with ReLU" : ""} of ${width} columns`,
    inputs: {
      ...{ x: floats(70, width), gain: floats(width), bias: floats(width), mean: singles(width) },
      variance: { shape: [width], data: normal(width, 77).map((value) => Math.abs(value) + 0.1), half: false },
    },
    outputs: { y: out(70, width) },
    record: ({ y, mean, variance, x, gain, bias }) =>
      batchNormRunning(y, { mean, variance }, x, gain, bias, { relu: withRelu }),
    expected({ x, gain, bias, mean, variance }) {
      const y = Float64Array.from(x, (value, i) => {
        const c = i % width;
        return gain[c] * (value - mean[c]) / Math.sqrt(variance[c] + 1e-5) + bias[c];
      });
      return { y: withRelu ? clipped(y) : y };
    },
    may: (planted, at) => (_, i) => (planted === "mean" || planted === "variance") && i % width === at,
  }))
);

const imageCases = [4, 3].flatMap((channels): Case[] => {
  const images = [2, 7, 6, channels], window = { size: 3, stride: 2, padding: 1 }, pooled = [2, 4, 3, channels];
  const shape = { samples: 2, height: 7, width: 6, inputs: channels, outputs: channels, ...window };
  const weight = [3, 3, channels, channels];
  const of = `of images of ${channels} channels`;
  return [
    {
      name: `conv2d() and its gradients ${of}`,
      inputs: { x: floats(...images), weight: floats(...weight), dy: floats(...pooled), dweight: singles(...weight) },
      outputs: { y: out(...pooled), dx: out(...images) },
      record({ y, x, weight, dx, dy, dweight }) {
        conv2d(y, x, weight, window);
        conv2dBackwardInput(dx, dy, weight, window);
        conv2dBackwardWeight(dweight, dy, x, window);
      },
      expected({ x, weight, dy, dweight }) {
        const gradients = convs.conv2dBackward(dy, x, weight, shape);
        return { y: convs.conv2d(x, weight, shape), dx: gradients.dx, dweight: plus(dweight, gradients.dweight) };
      },
      // A pixel at the edge takes taps of the weight times dy beyond the edge, 0.
      may: (planted, at) => (output, i) =>
        planted === "weight" && output === "dx" && i % channels === Math.floor(at / channels) % channels,
    },
    {
      name: `maxPool() and averagePool() ${of}`,
      inputs: { x: floats(...images), dmeans: floats(2, channels), dy: floats(...pooled) },
      outputs: {
        ...{ y: out(...pooled), dx: out(...images), means: out(2, channels), dpixels: out(...images) },
        taps: { shape: pooled, half: false },
      },
      record({ y, taps, x, dx, dy, means, dpixels, dmeans }) {
        maxPool(y, taps, x, window);
        maxPoolBackward(dx, dy, taps, window);
        averagePool(means, x);
        averagePoolBackward(dpixels, dmeans);
      },
      expected({ x, dy, dmeans }) {
        const { y, from } = pools.maxPool(x, images, window);
        return {
          ...{ y, dx: pools.maxPoolBackward(dy, from, x.length) },
          ...{ means: pools.averagePool(x, images), dpixels: pools.averagePoolBackward(dmeans, images) },
        };
      },
    },
  ];
});

const heads = { length: 3, heads: 2, headSize: 8, rowStride: 20 };
const ropeCases: Case[] = [heads, { ...heads, headSize: 6, rowStride: 15 }].map((shape) => ({
  name: `rope() and its gradient of heads of ${shape.headSize}`,
  inputs: { x: floats(6, shape.rowStride), dx: floats(6, shape.rowStride) },
  outputs: {},
  record({ x, dx }) {
    rope(x, shape);
    ropeBackward(dx, shape);
  },
  expected: ({ x, dx }) => ({ x: ropes.rope(x, shape), dx: ropes.rope(dx, shape, -1) }),
}));

/** Sizes that no tile divides, for the kernels that take four elements at once, for sums in parts, and for the others. */
const matmulCases: Case[] = [[12, 20, 256], [36, 36, 24], [5, 7, 3]].flatMap(([m, n, k]) =>
  [false, true].map((gradient): Case => ({
    name: gradient ? `matmul() of ${k} x ${m} transposed, added up` : `matmul() of ${m} x ${k}`,
    inputs: gradient ? { a: floats(k, m), b: floats(k, n), y: singles(m, n) } : { a: floats(m, k), b: floats(k, n) },
    outputs: gradient ? {} : { y: out(m, n) },
    record: ({ y, a, b }) =>
      matmul(y, a, b, { transposeA: gradient, accumulate: gradient, ...gradient ? { sampleRows: k / 2 } : {} }),
    expected: ({ a, b, y }) => ({ y: gradient ? plus(y, project(transpose(a, m), b, k)) : project(a, b, k) }),
  }))
);

/** Two heads that share keys and values, more keys than a tile of the fused kernels has, and every mask. */
const attentionCases: Case[] = [
  { shape: { sequences: 2, length: 36, heads: 2, kvHeads: 1, headSize: 4 }, lengths: [21, 36], rate: 0.3 },
  { shape: { sequences: 1, length: 5, heads: 2, headSize: 3, causal: false }, lengths: undefined, rate: 0 },
].map(({ shape, lengths, rate }) => {
  const { sequences, length, heads, kvHeads = heads, headSize } = shape;
  const packed = qkvWidth(shape), width = heads * headSize, R = sequences * length, salt = 5;
  const ones = new Float64Array(sequences * heads * length * length).fill(1);
  const factors = rate ? drops.dropout(ones, length, { rate, seed: 9, salt, firstRow: heads * length }) : undefined;
  const seed = words(Uint32Array.of(9, 1)), ends = words(Uint32Array.from(lengths ?? []));
  // In each query head, keys and values; in the first sequence one row that counts, and the last one.
  const parts = Array.from({ length: heads + 2 * kvHeads }, (_, part) => part * headSize + 1), rowsOf = [2, length - 1];
  /** Sequence, kind and key head of an element. */
  const placeOf = (name: string, i: number) => {
    const row = Math.floor(i / (name === "out" || name === "dout" ? width : packed));
    const head = Math.floor(i % (name === "out" || name === "dout" ? width : packed) / headSize);
    const kind = name === "out" || name === "dout" ? name : head < heads ? "q" : head < heads + kvHeads ? "k" : "v";
    const keyHead = kind === "k"
      ? head - heads
      : kind === "v"
      ? head - heads - kvHeads
      : Math.floor(head * kvHeads / heads);
    return { kind, group: `${Math.floor(row / length)} ${keyHead}` };
  };
  return {
    name: `attention() and its gradient of ${length} positions`,
    inputs: {
      qkv: { ...floats(R, packed), places: parts.flatMap((part) => rowsOf.map((row) => row * packed + part)) },
      dout: floats(R, width),
      ...rate ? { seed } : {},
      ...lengths ? { lengths: ends } : {},
    },
    outputs: { out: out(R, width), dqkv: out(R, packed) },
    record({ out, dqkv, qkv, dout, seed, lengths }) {
      const masks = { ...lengths ? { lengths } : {}, ...seed ? { dropout: { rate, salt, seed } } : {} };
      const needed = chooseAttention(qkv.device.gpu, shape, qkv.dtype, masks).keeps(shape, qkv.dtype);
      const kept = empty(qkv.device, needed.shape, "workspace", needed.dtype);
      attention(out, kept, qkv, shape, masks);
      attentionBackward(dqkv, dout, out, qkv, kept, shape, masks);
      release(kept);
    },
    expected({ qkv, dout }) {
      const masks = { lengths, factors };
      const { out, probabilities } = attentions.attention(qkv, shape, masks);
      return { out, dqkv: attentions.attentionBackward(dout, qkv, probabilities, shape, masks) };
    },
    // What a row does not see has a probability of exactly 0, and so have the gradients of its score.
    may(planted, at) {
      const from = placeOf(planted, at);
      return (output, i) => {
        const { kind, group } = placeOf(output, i);
        if (group !== from.group) return false;
        if (from.kind === "v") return true;
        return { q: "k", k: "q", dout: "v" }[from.kind] === kind;
      };
    },
  };
});

/** Documents of 5 and 7, and of 12 tokens. */
const documentsCase: Case = {
  name: "hideDocuments() of scores and of their gradient",
  inputs: {
    scores: { ...floats(2, 2, 12, 12), places: [7 * 12 + 2, 7 * 12 + 6] },
    dscores: { ...floats(2, 2, 12, 12), places: [9 * 12 + 4, 9 * 12 + 9] },
    starts: words(Uint32Array.from({ length: 24 }, (_, i) => i >= 5 && i < 12 ? 5 : 0), [2, 12]),
  },
  outputs: {},
  record({ scores, dscores, starts }) {
    const shape = { sequences: 2, heads: 2, length: 12 };
    hideDocuments(scores, starts, shape);
    hideDocuments(dscores, starts, shape, true);
  },
  expected({ scores, dscores }) {
    // Of each sequence's two matrices of 144.
    const isHidden = (i: number) => i < 288 && Math.floor(i / 12) % 12 >= 5 && i % 12 < 5;
    const hidden = (values: ArrayLike<number>, value: number) =>
      Float64Array.from(values, (each, i) => isHidden(i) ? value : each);
    return { scores: hidden(scores, -1e4), dscores: hidden(dscores, 0) };
  },
};

/** Two tokens behind three of which keys and values are kept, with room for two more. */
const cachedCase: Case = (() => {
  const shape = { sequences: 1, length: 5, heads: 2, kvHeads: 1, headSize: 4 }, before = 3, capacity = 7;
  const packed = qkvWidth(shape), kept = keptWidth(shape), queries = packed - kept;
  const appended = ({ qkv, keys }: Numbers) =>
    Float64Array.from(keys, (value, i) => {
      const row = Math.floor(i / kept) - before;
      return row === 0 || row === 1 ? qkv[row * packed + queries + i % kept] : value;
    });
  return {
    name: "appendKeys() and cachedAttention()",
    inputs: {
      qkv: { ...floats(2, packed), places: [1, 5, 9, 13].flatMap((column) => [column, packed + column]) },
      keys: { ...floats(capacity, kept), places: [kept + 1, kept + 5, before * kept, 6 * kept + 2] },
      before: words(Uint32Array.of(before)),
    },
    outputs: { y: out(2, queries) },
    record({ y, qkv, keys, before }) {
      appendKeys(keys, qkv, before, shape);
      cachedAttention(y, qkv, keys, before, shape);
    },
    expected(inputs) {
      const keys = appended(inputs);
      const whole = Float64Array.from({ length: shape.length * packed }, (_, i) => {
        const row = Math.floor(i / packed), column = i % packed;
        if (column >= queries) return keys[row * kept + column - queries];
        return row < before ? 0 : inputs.qkv[(row - before) * packed + column];
      });
      return { keys, y: attentions.attention(whole, shape).out.slice(before * queries) };
    },
  };
})();

/** More than a chunk of tokens, and channels that divide by the subgroup's lanes. */
const scanCase = (sumsIn: "I" | "W"): Case => {
  const state = 16, length = 20, channels = 16, R = 2 * length;
  const gradients = { daLog: singles(channels, state), dd: singles(channels), ddtBias: singles(channels) };
  return {
    name: `selectiveScan() and its gradients, sums in ${sumsIn}`,
    inputs: {
      ...{
        x: floats(R, channels),
        dtRaw: floats(R, channels),
        projection: { ...floats(R, 2 * state), places: [5, 5 + state] },
      },
      ...{ gate: floats(R, channels), aLog: floats(channels, state), d: floats(channels), dtBias: floats(channels) },
      ...{ dout: floats(R, channels), ...gradients },
    },
    outputs: {
      ...{ out: out(R, channels), dprojection: out(R, 2 * state) },
      ...sumsIn === "W" ? { dscan: out(R, 2 * channels) } : {},
    },
    record({ out, x, dtRaw, projection, gate, aLog, d, dtBias, dout, dprojection, dscan, daLog, dd, ddtBias }) {
      const states = empty(x.device, scanStatesShape(R, length, channels, state), "workspace");
      const sums = empty(x.device, scanSumsShape(R, length, channels, state), "workspace");
      const inputs = { x, dtRaw, projection, gate }, parameters = { aLog, d, dtBias };
      selectiveScan(out, states, inputs, parameters, length);
      const left = sumsIn === "I" ? { sums } : { dscan };
      selectiveScanBackwardInput(dout, dprojection, left, states, inputs, parameters, length);
      if (sumsIn === "W") selectiveScanSums(sums, { ...inputs, dscan }, parameters, length);
      selectiveScanBackwardWeight({ aLog: daLog, d: dd, dtBias: ddtBias }, sums);
      release(states, sums);
    },
    expected({ x, dtRaw, projection, gate, aLog, d, dtBias, dout, daLog, dd, ddtBias }) {
      const half = (from: number) =>
        Float64Array.from(
          { length: R * state },
          (_, i) => projection[Math.floor(i / state) * 2 * state + from + i % state],
        );
      const scan = { x, dtRaw, b: half(0), c: half(state), z: gate, aLog, d, dtBias };
      const to = scans.selectiveScanBackward(dout, scan, length);
      return {
        ...{ out: scans.selectiveScan(scan, length).out, dout: to.x, gate: to.z },
        ...sumsIn === "I" ? { dtRaw: to.dtRaw } : {
          dscan: Float64Array.from({ length: R * 2 * channels }, (_, i) => {
            const row = Math.floor(i / (2 * channels)), column = i % (2 * channels);
            return column < channels ? to.dtRaw[row * channels + column] : to.y[(row - 1) * channels + column];
          }),
        },
        dprojection: Float64Array.from(projection, (_, i) => {
          const row = Math.floor(i / (2 * state)), column = i % (2 * state);
          return column < state ? to.b[row * state + column] : to.c[row * state + column - state];
        }),
        ...{ daLog: plus(daLog, to.aLog), dd: plus(dd, to.d), ddtBias: plus(ddtBias, to.dtBias) },
      };
    },
  };
};

/** Two tokens that go on from a state and the convolution's last inputs. */
const piecesCase: Case = (() => {
  const state = 8, channels = 5, R = 2;
  return {
    name: "causalConvOn() and selectiveScanOn()",
    inputs: {
      ...{ x: floats(R, channels), dtRaw: floats(R, channels), gate: floats(R, channels) },
      projection: { ...floats(R, 2 * state), places: [5, 5 + state] },
      ...{ aLog: floats(channels, state), d: floats(channels), dtBias: floats(channels) },
      ...{ weight: floats(channels, 4), bias: floats(channels), inside: floats(R, channels) },
      ...{ last: { ...singles(channels, 4), places: [4, 7] }, states: singles(state / 4, channels, 4) },
      before: words(Uint32Array.of(9)),
    },
    outputs: { out: out(R, channels), y: out(R, channels) },
    record({ out, y, x, dtRaw, projection, gate, aLog, d, dtBias, weight, bias, inside, last, states, before }) {
      causalConvOn(y, last, inside, weight, bias, before);
      selectiveScanOn(out, states, { x, dtRaw, projection, gate }, { aLog, d, dtBias }, before);
    },
    expected({ x, dtRaw, projection, gate, aLog, d, dtBias, weight, bias, inside, last, states }) {
      const half = (from: number) =>
        Float64Array.from(
          { length: R * state },
          (_, i) => projection[Math.floor(i / state) * 2 * state + from + i % state],
        );
      // The last three inputs, and then the new ones.
      const whole = Float64Array.from({ length: (3 + R) * channels }, (_, i) => {
        const row = Math.floor(i / channels), channel = i % channels;
        return row < 3 ? last[channel * 4 + row + 1] : inside[(row - 3) * channels + channel];
      });
      const scan = { x, dtRaw, b: half(0), c: half(state), z: gate, aLog, d, dtBias };
      return {
        ...scans.selectiveScanOn(scan, states),
        y: causalConvs.causalConv(whole, weight, bias, 3 + R).slice(3 * channels),
        last: Float64Array.from(last, (_, i) => whole[(R - 1 + i % 4) * channels + Math.floor(i / 4)]),
      };
    },
  };
})();

const causalConvCase: Case = {
  name: "causalConv() and its gradients",
  inputs: {
    ...{ x: floats(140, 5), weight: floats(5, 4), bias: floats(5), dy: floats(140, 5), xAgain: floats(140, 5) },
  },
  outputs: { y: out(140, 5), dweight: out32(2, 20), dbias: out32(2, 5) },
  record({ y, x, weight, bias, xAgain, dweight, dbias, dy }) {
    causalConv(y, x, weight, bias, 70);
    causalConvBackwardInput(xAgain, dweight, dbias, dy, weight, bias, 70);
  },
  expected({ x, weight, bias, xAgain, dy }) {
    const { dx, dweight, dbias } = causalConvs.causalConvBackward(dy, xAgain, weight, bias, 70);
    return { y: causalConvs.causalConv(x, weight, bias, 70), xAgain: dx, dweight, dbias };
  },
};

const fillCase: Case = {
  name: "fill()",
  inputs: {},
  outputs: { y: out(5) },
  record: ({ y }) => fill(y, 1),
  expected: () => ({ y: [1, 1, 1, 1, 1] }),
};

/** The one with more keys than a tile. */
export const [attentionCase] = attentionCases;

/** All of them. */
export const cases: readonly Case[] = [
  ...rowCases,
  ...matmulCases, // before what is made of products
  ...batchNormCases,
  ...batchNormRunningCases,
  ...imageCases,
  ...ropeCases,
  ...attentionCases,
  documentsCase,
  cachedCase,
  scanCase("I"),
  scanCase("W"),
  causalConvCase,
  piecesCase,
  fillCase,
];
