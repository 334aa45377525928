import assert from "node:assert/strict";
import { after, test } from "node:test";
import { fromHalf, toHalf } from "../../lib/half.ts";
import {
  causalConv,
  causalConvBackwardInput,
  causalConvBackwardWeight,
  causalConvOn,
} from "../../lib/ops/causal_conv.ts";
import { toArray } from "../../lib/tensor.ts";
import * as reference from "../reference/causal_conv.ts";
import { assertClose, assertGradient, assertTensor, close, device, dirty, normal, tensor, weigh } from "./support.ts";

after(close);

/** x [rows, channels] as the first columns of wider rows, the rest 7. */
const widened = (x: ArrayLike<number>, channels: number, width: number) =>
  Float32Array.from({ length: x.length / channels * width }, (_, i) => {
    const column = i % width;
    return column < channels ? x[Math.floor(i / width) * channels + column] : 7;
  });

for (
  const [sequences, length, channels, width] of [[1, 1, 1, 1], [2, 3, 5, 5], [3, 7, 6, 12], [2, 131, 70, 140], [
    1,
    64,
    33,
    40,
  ]]
) {
  const rows = sequences * length;
  const of = `of ${sequences} x ${length} tokens, ${channels} of ${width} columns`;
  const x = normal(rows * channels, 1), weight = normal(channels * 4, 2), bias = normal(channels, 3);
  const dy = normal(rows * channels, 4);
  const expected = reference.causalConvBackward(dy, x, weight, bias, length);

  test(`causalConv() ${of} equals the float64 reference`, async () => {
    const on = await device();
    const y = dirty(on, [rows, channels]);
    const xt = tensor(on, [rows, width], widened(x, channels, width));
    causalConv(y, xt, tensor(on, [channels, 4], weight), tensor(on, [channels], bias), length);
    await assertTensor(y, reference.causalConv(x, weight, bias, length));
  });

  test(`causalConvBackwardInput() ${of} equals the float64 reference and leaves other columns alone`, async () => {
    const on = await device();
    const xt = tensor(on, [rows, width], widened(x, channels, width));
    const dweight = dirty(on, [sequences, channels * 4]), dbias = dirty(on, [sequences, channels]);
    const [dyt, w, b] = [
      tensor(on, [rows, channels], dy),
      tensor(on, [channels, 4], weight),
      tensor(on, [channels], bias),
    ];
    causalConvBackwardInput(xt, dweight, dbias, dyt, w, b, length);
    await assertTensor(xt, widened(expected.dx, channels, width), undefined, "dx");
    await assertTensor(dweight, expected.dweight, undefined, "dweight");
    await assertTensor(dbias, expected.dbias, undefined, "dbias");
  });
}

test("causalConv() and its I in f16 round the float64 reference of rounded inputs; the sums for W are f32", async (t) => {
  const on = await device();
  if (!on.gpu.info.f16) return t.skip("this device has no f16");
  const [sequences, length, channels, width] = [2, 37, 9, 14], rows = sequences * length;
  const round = (count: number, seed: number) => fromHalf(toHalf(normal(count, seed)));
  const x = round(rows * channels, 1), weight = round(channels * 4, 2), bias = round(channels, 3);
  const dy = round(rows * channels, 4);
  const half = (shape: number[], data: Float32Array) => tensor(on, shape, data, "f16");
  const y = dirty(on, [rows, channels], "f16"), xt = half([rows, width], widened(x, channels, width));
  const dweight = dirty(on, [sequences, channels * 4]), dbias = dirty(on, [sequences, channels]);
  const [wt, bt] = [half([channels, 4], weight), half([channels], bias)];
  causalConv(y, xt, wt, bt, length);
  causalConvBackwardInput(xt, dweight, dbias, half([rows, channels], dy), wt, bt, length);
  const expected = reference.causalConvBackward(dy, x, weight, bias, length);
  await assertTensor(y, reference.causalConv(x, weight, bias, length), 5e-4, "y");
  await assertTensor(xt, widened(expected.dx, channels, width), 5e-4, "dx");
  await assertTensor(dweight, expected.dweight, undefined, "dweight");
  await assertTensor(dbias, expected.dbias, undefined, "dbias");
});

test("causalConvBackwardWeight() adds the sums of all sequences", async () => {
  const on = await device();
  const sums = normal(5 * 12, 1), biasSums = normal(5 * 3, 2);
  const dweight = tensor(on, [3, 4], new Float32Array(12).fill(1));
  const dbias = tensor(on, [3], new Float32Array(3).fill(2));
  causalConvBackwardWeight(dweight, dbias, tensor(on, [5, 12], sums), tensor(on, [5, 3], biasSums));
  const columns = (all: Float32Array, width: number, start: number) =>
    Float64Array.from(
      { length: width },
      (_, c) => all.reduce((sum, value, i) => i % width === c ? sum + value : sum, start),
    );
  await assertTensor(dweight, columns(sums, 12, 1), undefined, "dweight");
  await assertTensor(dbias, columns(biasSums, 3, 2), undefined, "dbias");
});

test("the causalConv reference's backward equals finite differences of its forward", () => {
  const x = normal(2 * 5 * 3, 1), weight = normal(3 * 4, 2), bias = normal(3, 3), dy = normal(2 * 5 * 3, 4);
  const { dx, dweight, dbias } = reference.causalConvBackward(dy, x, weight, bias, 5);
  const overSequences = (sums: Float64Array) =>
    sums.subarray(0, sums.length / 2).map((value, i) => value + sums[sums.length / 2 + i]);
  assertGradient((x) => weigh(reference.causalConv(x, weight, bias, 5), dy), x, dx, "dx");
  assertGradient((w) => weigh(reference.causalConv(x, w, bias, 5), dy), weight, overSequences(dweight), "dweight");
  assertGradient((b) => weigh(reference.causalConv(x, weight, b, 5), dy), bias, overSequences(dbias), "dbias");
});

test("causalConv() keeps sequences apart: another first sequence changes nothing in the second", async () => {
  const on = await device();
  const weight = tensor(on, [2, 4], normal(8, 1)), bias = tensor(on, [2], normal(2, 2));
  const results = await Promise.all([3, 4].map((seed) => {
    const x = new Float32Array([...normal(10, seed), ...normal(10, 5)]);
    const y = dirty(on, [10, 2]);
    causalConv(y, tensor(on, [10, 2], x), weight, bias, 5);
    return toArray(y);
  }));
  assertClose(results[0].subarray(10), results[1].subarray(10), 0);
});

test("causalConv() rejects a weight of other taps and rows that are no whole sequences, naming the shapes", async () => {
  const on = await device();
  const y = dirty(on, [6, 2]), bias = dirty(on, [2]);
  assert.throws(
    () => causalConv(y, dirty(on, [6, 2]), dirty(on, [2, 3]), bias, 3),
    /causalConv: weight is f32 \[2,3\] where f32 or f16 \[2,4\] is needed/,
  );
  assert.throws(() => causalConv(y, dirty(on, [6, 2]), dirty(on, [2, 4]), bias, 4), /\[6,2\].* 4 tokens/);
  assert.throws(() => causalConv(y, dirty(on, [5, 2]), dirty(on, [2, 4]), bias, 3), /x is \[5,2\] where \[6,2\]/);
});

for (const sizes of [[1, 1, 1, 1, 1, 1, 1, 1, 1], [5, 1, 3], [2, 7], [9]]) {
  test(`causalConvOn() in pieces of ${sizes} tokens equals the float64 reference of the whole`, async () => {
    const on = await device(), channels = 70, width = 75;
    const x = normal(9 * channels, 1), weight = normal(channels * 4, 2), bias = normal(channels, 3);
    const [w, b, last] = [tensor(on, [channels, 4], weight), tensor(on, [channels], bias), dirty(on, [channels, 4])];
    const all = new Float32Array(9 * channels);
    let at = 0;
    for (const rows of sizes) {
      const y = dirty(on, [rows, channels]), piece = x.slice(at * channels, (at + rows) * channels);
      const before = tensor(on, [1], Uint32Array.of(at));
      causalConvOn(y, last, tensor(on, [rows, width], widened(piece, channels, width)), w, b, before);
      all.set(await toArray(y), at * channels);
      at += rows;
    }
    assertClose(all, reference.causalConv(x, weight, bias, 9));
  });
}
