import assert from "node:assert/strict";
import { after, test } from "node:test";
import { fromHalf, toHalf } from "../../lib/half.ts";
import {
  scanStatesShape,
  scanSumsShape,
  selectiveScan,
  selectiveScanBackwardInput,
  selectiveScanBackwardWeight,
  selectiveScanOn,
  selectiveScanSums,
} from "../../lib/ops/scan.ts";
import { type DType, release, type Tensor, toArray } from "../../lib/tensor.ts";
import * as reference from "../reference/scan.ts";
import {
  assertClose,
  assertGradient,
  assertTensor,
  close,
  device,
  dirty,
  normal,
  tensor,
  weigh,
  withCandidate,
} from "./support.ts";

after(close);

interface Sizes {
  readonly sequences: number;
  readonly length: number;
  readonly channels: number;
  readonly state: number;
  /** Columns of the projection before B and C. */
  readonly rank: number;
}

/** Inputs as they are at the start of training: dt between 0.0003 and 1, A from -1 to -state. */
function inputs({ sequences, length, channels, state }: Sizes): reference.Scan {
  const rows = sequences * length;
  return {
    x: normal(rows * channels, 1),
    dtRaw: normal(rows * channels, 2),
    b: normal(rows * state, 3),
    c: normal(rows * state, 4),
    z: normal(rows * channels, 5).map((value) => 3 * value),
    aLog: Float32Array.from({ length: channels * state }, (_, i) => Math.log(1 + i % state) + 0.1 * Math.sin(i)),
    d: normal(channels, 6),
    dtBias: normal(channels, 7).map((value) => value - 3),
  };
}

/** The parts side by side in each row, after `before` columns of 7. */
function beside(rows: number, before: number, ...parts: ArrayLike<number>[]): Float32Array {
  const row = (index: number) =>
    parts.flatMap((part) => {
      const width = part.length / rows;
      return Array.from({ length: width }, (_, column) => part[index * width + column]);
    });
  return new Float32Array(
    Array.from({ length: rows }, (_, index) => [...new Array<number>(before).fill(7), ...row(index)]).flat(),
  );
}

async function place(sizes: Sizes, scan: reference.Scan, dtype: DType = "f32") {
  const on = await device();
  const { sequences, length, channels, state, rank } = sizes;
  const rows = sequences * length;
  const all = (values: ArrayLike<number>, shape: number[]) => tensor(on, shape, Float32Array.from(values), dtype);
  return {
    on,
    rows,
    inputs: {
      x: all(scan.x, [rows, channels]),
      dtRaw: all(scan.dtRaw, [rows, channels]),
      projection: tensor(on, [rows, rank + 2 * state], beside(rows, rank, scan.b, scan.c), dtype),
      gate: tensor(on, [rows, 2 * channels], beside(rows, channels, scan.z), dtype),
    },
    parameters: {
      aLog: all(scan.aLog, [channels, state]),
      d: all(scan.d, [channels]),
      dtBias: all(scan.dtBias, [channels]),
    },
    out: dirty(on, [rows, channels], dtype),
    states: dirty(on, scanStatesShape(rows, length, channels, state)),
    sums: dirty(on, scanSumsShape(rows, length, channels, state)),
    dscan: dirty(on, [rows, 2 * channels], dtype),
    dprojection: dirty(on, [rows, rank + 2 * state], dtype),
  };
}

/** The last `count` columns of rows `width` long. */
const lastColumns = (values: ArrayLike<number>, width: number, count: number, end = width) =>
  Float64Array.from(values).filter((_, i) => i % width >= end - count && i % width < end);

/** `make`, run when its result is first asked for. */
function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => made ??= make();
}

const cases: Sizes[] = [
  { sequences: 1, length: 1, channels: 1, state: 4, rank: 0 },
  { sequences: 2, length: 5, channels: 3, state: 4, rank: 4 },
  { sequences: 1, length: 16, channels: 8, state: 16, rank: 8 },
  { sequences: 3, length: 37, channels: 70, state: 16, rank: 4 },
  { sequences: 2, length: 64, channels: 9, state: 8, rank: 0 },
  { sequences: 2, length: 21, channels: 48, state: 12, rank: 4 },
  // More partial sums than lie in memory at once: several dispatches, of several chunks each.
  { sequences: 1, length: 260, channels: 1024, state: 16, rank: 4 },
];

for (const sizes of cases) {
  const { sequences, length, channels, state, rank } = sizes;
  const of = `of ${sequences} x ${length} tokens, ${channels} channels, states of ${state}`;
  const scan = inputs(sizes), dout = normal(sequences * length * channels, 8);
  const forwardReference = once(() => reference.selectiveScan(scan, length));
  const backwardReference = once(() => reference.selectiveScanBackward(dout, scan, length));

  for (const way of ["plain", "subgroup", "chunks"]) {
    test(`selectiveScan() ${of} (${way}) equals the float64 reference`, async () => {
      const { inputs, parameters, out, states } = await place(sizes, scan);
      withCandidate(way, () => selectiveScan(out, states, inputs, parameters, length));
      const { out: expected, h } = forwardReference();
      await assertTensor(out, expected, 4e-6);
      const kept = await toArray(states);
      const at = (sequence: number, index: number, n: number, channel: number) => {
        const row = sequence * length + index * 16 - 1;
        return index === 0 ? 0 : h[(row * channels + channel) * state + n];
      };
      const chunks = Math.ceil(length / 16);
      const wanted = Float64Array.from({ length: kept.length }, (_, i) => {
        // Four numbers of a state lie together: [sequences, chunks, state / 4, channels, 4].
        const channel = Math.floor(i / 4) % channels;
        const v = Math.floor(i / 4 / channels) % (state / 4);
        const part = Math.floor(i / channels / state);
        return at(Math.floor(part / chunks), part % chunks, v * 4 + i % 4, channel);
      });
      assertClose(kept, wanted, 4e-6, "states");
    });

    for (const sumsIn of ["I", "W"]) {
      test(`the backward halves of selectiveScan() ${of} (${way}, sums in ${sumsIn}) equal the float64 reference`, async () => {
        const { on, rows, inputs, parameters, out, states, sums, dscan, dprojection } = await place(sizes, scan);
        selectiveScan(out, states, inputs, parameters, length);
        const to = backwardReference();
        const dx = tensor(on, [rows, channels], dout);
        withCandidate(way, () => {
          const left = sumsIn === "I" ? { sums } : { dscan };
          selectiveScanBackwardInput(dx, dprojection, left, states, inputs, parameters, length);
          if (sumsIn === "W") selectiveScanSums(sums, { ...inputs, dscan }, parameters, length);
        });
        await assertTensor(dx, to.x, 1e-5, "dx");
        if (sumsIn === "I") await assertTensor(inputs.dtRaw, to.dtRaw, 1e-5, "ddtRaw");
        else {
          const left = await toArray(dscan);
          assertClose(lastColumns(left, 2 * channels, channels, channels), to.dtRaw, 1e-5, "ddtRaw");
          assertClose(lastColumns(left, 2 * channels, channels), to.y, 1e-5, "dy");
          assert.deepEqual(await toArray(inputs.dtRaw), scan.dtRaw, "dtRaw is left as it is");
        }
        const gate = await toArray(inputs.gate);
        assertClose(lastColumns(gate, 2 * channels, channels), to.z, 1e-5, "dz");
        assert.ok(lastColumns(gate, 2 * channels, channels, channels).every((value) => value === 7), "beside z");
        const width = rank + 2 * state, gradient = await toArray(dprojection);
        assertClose(lastColumns(gradient, width, state), to.c, 1e-5, "dC");
        assertClose(lastColumns(gradient, width, state, width - state), to.b, 1e-5, "dB");
        assert.ok(lastColumns(gradient, width, rank, rank).every(Number.isNaN), "beside dB and dC");

        const ones = (shape: number[]) => tensor(on, shape, new Float32Array(shape.reduce((a, b) => a * b)).fill(1));
        const gradients = { aLog: ones([channels, state]), d: ones([channels]), dtBias: ones([channels]) };
        for (const times of [1, 2]) {
          selectiveScanBackwardWeight(gradients, sums);
          for (const name of ["aLog", "d", "dtBias"] as const) {
            const expected = to[name].map((value) => 1 + times * value);
            assertClose(await toArray(gradients[name]), expected, 1e-5, `gradient of ${name}, added ${times} times`);
          }
        }
      });
    }
  }
}

for (
  const [way, sizes] of [["plain", cases[1]], ["subgroup", cases[2]], ["subgroup", cases[5]], [
    "chunks",
    cases[3],
  ]] as const
) {
  const { sequences, length, channels, state, rank } = sizes;
  for (const sumsIn of ["I", "W"]) {
    test(`selectiveScan() and its backward halves in f16 (${way}, ${channels} channels, sums in ${sumsIn}) round the float64 reference of rounded inputs`, async (t) => {
      const on = await device();
      if (!on.gpu.info.f16) return t.skip("this device has no f16");
      const round = (values: ArrayLike<number>) => fromHalf(toHalf(Float32Array.from(values)));
      const scan = Object.fromEntries(Object.entries(inputs(sizes)).map(([name, values]) => [name, round(values)]));
      const rounded = scan as unknown as reference.Scan;
      const { rows, inputs: placed, parameters, out, states, sums, dscan, dprojection } = await place(
        sizes,
        rounded,
        "f16",
      );
      const dout = round(normal(rows * channels, 8)), dx = tensor(on, [rows, channels], dout, "f16");
      withCandidate(way, () => {
        const left = sumsIn === "I" ? { sums } : { dscan };
        selectiveScan(out, states, placed, parameters, length);
        selectiveScanBackwardInput(dx, dprojection, left, states, placed, parameters, length);
        if (sumsIn === "W") selectiveScanSums(sums, { ...placed, dscan }, parameters, length);
      });
      const to = reference.selectiveScanBackward(dout, rounded, length);
      await assertTensor(out, reference.selectiveScan(rounded, length).out, 6e-4, "out");
      await assertTensor(dx, to.x, 6e-4, "dx");
      const ddt = sumsIn === "I"
        ? await toArray(placed.dtRaw)
        : lastColumns(await toArray(dscan), 2 * channels, channels, channels);
      assertClose(ddt, to.dtRaw, 6e-4, "ddtRaw");
      assertClose(lastColumns(await toArray(placed.gate), 2 * channels, channels), to.z, 6e-4, "dz");
      const width = rank + 2 * state, gradient = await toArray(dprojection);
      assertClose(lastColumns(gradient, width, state), to.c, 6e-4, "dC");
      assertClose(lastColumns(gradient, width, state, width - state), to.b, 6e-4, "dB");
      const zeros = (shape: number[]) => tensor(on, shape, new Float32Array(shape.reduce((a, b) => a * b)), "f16");
      const gradients = { aLog: zeros([channels, state]), d: zeros([channels]), dtBias: zeros([channels]) };
      selectiveScanBackwardWeight(gradients, sums);
      for (const name of ["aLog", "d", "dtBias"] as const) await assertTensor(gradients[name], to[name], 6e-4, name);
      assert.equal(sums.shape[0], sequences);
    });
  }
}

test("selectiveScan() keeps steps far below float32's precision of 1, and stays finite for huge ones", async () => {
  const sizes = { sequences: 1, length: 4, channels: 4, state: 4, rank: 0 };
  const scan = { ...inputs(sizes), dtRaw: Float32Array.from({ length: 16 }, (_, i) => [-25, -12, 30, 90][i % 4]) };
  const { inputs: placed, parameters, out, states } = await place(sizes, scan);
  selectiveScan(out, states, placed, parameters, 4);
  const expected = reference.selectiveScan(scan, 4).out, actual = await toArray(out);
  for (let channel = 0; channel < 4; channel++) {
    const of = (values: ArrayLike<number>) => Float64Array.from(values).filter((_, i) => i % 4 === channel);
    assertClose(of(actual), of(expected), 2e-5, `channel ${channel}`);
  }
});

test("the selectiveScan reference's backward equals finite differences of its forward", () => {
  const sizes = { sequences: 2, length: 5, channels: 3, state: 4, rank: 0 };
  const scan = inputs(sizes), dout = normal(30, 8);
  const to = reference.selectiveScanBackward(dout, scan, 5);
  for (const name of Object.keys(scan) as (keyof reference.Scan)[]) {
    const f = (values: Float64Array) => weigh(reference.selectiveScan({ ...scan, [name]: values }, 5).out, dout);
    assertGradient(f, scan[name], to[name], name);
  }
});

test("the selective scan's backward gives the same bits in every run, and the same whether I or W makes the sums", async () => {
  const sizes = cases[3];
  const runs: Float32Array[][] = [];
  for (const sumsIn of ["I", "I", "W", "W"]) {
    const { on, rows, inputs: placed, parameters, out, states, sums, dscan, dprojection } = await place(
      sizes,
      inputs(sizes),
    );
    selectiveScan(out, states, placed, parameters, sizes.length);
    const dout = tensor(on, [rows, sizes.channels], normal(rows * sizes.channels, 8));
    const left = sumsIn === "I" ? { sums } : { dscan };
    selectiveScanBackwardInput(dout, dprojection, left, states, placed, parameters, sizes.length);
    if (sumsIn === "W") selectiveScanSums(sums, { ...placed, dscan }, parameters, sizes.length);
    const results: Tensor[] = [dout, placed.gate, dprojection, sums];
    runs.push(await Promise.all(results.map(toArray)));
    release(...results);
  }
  assert.deepEqual(runs[1], runs[0]);
  assert.deepEqual(runs[3], runs[2]);
  assert.deepEqual(runs[2].slice(0, 3), runs[0].slice(0, 3));
  assertClose(runs[2][3], runs[0][3], 1e-5, "sums");
});

test("selectiveScan() rejects states that do not fit and projections not by fours, naming the shapes", async () => {
  const sizes = { sequences: 2, length: 5, channels: 3, state: 4, rank: 4 };
  const { on, inputs: placed, parameters, out, states } = await place(sizes, inputs(sizes));
  assert.throws(
    () => selectiveScan(out, dirty(on, [2, 2, 4, 3]), placed, parameters, 5),
    /selectiveScan: states is f32 \[2,2,4,3\] where f32 \[2,1,4,3\] is needed/,
  );
  assert.throws(
    () => selectiveScan(out, states, { ...placed, projection: dirty(on, [10, 9]) }, parameters, 5),
    /projection is \[10,9\] where \[10,8\] or wider, by fours, is needed/,
  );
  assert.throws(() => selectiveScan(out, states, placed, parameters, 4), /x \[10,3\].* 4 tokens/);
});

for (const pieces of [[...new Array<number>(21).fill(1)], [17, 1, 3], [21]]) {
  test(`selectiveScanOn() in ${pieces.length} pieces equals the float64 reference of the whole`, async () => {
    const on = await device(),
      sizes = { sequences: 1, length: 21, channels: 70, state: 8, rank: 4 },
      { channels } = sizes;
    const scan = inputs(sizes),
      states = dirty(on, [sizes.state / 4, channels, 4]),
      all = new Float32Array(21 * channels);
    const [aLog, d, dtBias] = [scan.aLog, scan.d, scan.dtBias].map((values) =>
      tensor(on, [values.length], Float32Array.from(values))
    );
    let at = 0;
    for (const rows of pieces) {
      const part = (values: ArrayLike<number>) => {
        const width = values.length / 21;
        return Float32Array.from(values).slice(at * width, (at + rows) * width);
      };
      const [x, dtRaw] = [scan.x, scan.dtRaw].map((values) => tensor(on, [rows, channels], part(values)));
      const projection = tensor(on, [rows, 4 + 16], beside(rows, 4, part(scan.b), part(scan.c)));
      const gate = tensor(on, [rows, 2 * channels], beside(rows, channels, part(scan.z)));
      const out = dirty(on, [rows, channels]), before = tensor(on, [1], Uint32Array.of(at));
      selectiveScanOn(out, states, { x, dtRaw, projection, gate }, { aLog, d, dtBias }, before);
      all.set(await toArray(out), at * channels);
      at += rows;
    }
    assertClose(all, reference.selectiveScan(scan, 21).out);
  });
}

test("the reference of a scan that goes on is that of the whole, cut in two", () => {
  const sizes = { sequences: 1, length: 9, channels: 3, state: 4, rank: 0 }, scan = inputs(sizes);
  const part = (from: number, to: number) =>
    Object.fromEntries(
      Object.entries(scan).map(([name, values]) => {
        const width = values.length / 9, isRow = !["aLog", "d", "dtBias"].includes(name);
        return [name, isRow ? Float64Array.from(values).slice(from * width, to * width) : values];
      }),
    ) as unknown as reference.Scan;
  const first = reference.selectiveScanOn(part(0, 5), new Float64Array(12));
  const second = reference.selectiveScanOn(part(5, 9), first.states);
  assertClose([...first.out, ...second.out], reference.selectiveScan(scan, 9).out, 1e-12);
});
