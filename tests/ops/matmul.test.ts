import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { GpuInfo } from "../../lib/gpu/gpu.ts";
import { fromHalf, toHalf } from "../../lib/half.ts";
import type { Candidate } from "../../lib/ops/choice.ts";
import { matmul, matmulBatched, matmulOperation } from "../../lib/ops/matmul.ts";
import type { Layout, Problem } from "../../lib/ops/matmul_problem.ts";
import { type DType, release, toArray } from "../../lib/tensor.ts";
import { assertTensor, close, device, dirty, normal, tensor, withCandidate } from "./support.ts";

after(close);

const transposes = [[false, false], [false, true], [true, false], [true, true]] as const;
const sign = (transposed: boolean) => transposed ? "T" : "N";

/** What a problem is made of, besides its numbers. */
interface Case {
  /** m, n, k */
  size: [number, number, number];
  batch?: [number, number];
  /** Unused elements between the rows of every operand, and before the first. */
  gap?: number;
  accumulate?: boolean;
  scale?: number;
  /** Rows of a sample, for products in parts. */
  sampleRows?: number;
  /** With operands of {@link halfTypes} instead of f32. */
  half?: boolean;
}

/** Element types of out, a and b by transposes: activations, gradients of parameters, and a mixture. */
const halfTypes: Record<string, [DType, DType, DType]> = {
  NN: ["f16", "f16", "f16"],
  NT: ["f16", "f16", "f16"],
  TN: ["f32", "f16", "f16"],
  TT: ["f16", "f32", "f16"],
};

// Sizes around the tiles' (16, 32, 64 and 4 lanes), never a multiple of them; the first ones and the batches with even gaps are
// for the kernels that need fours.
const cases: Case[] = [
  { size: [4, 4, 4] },
  { size: [36, 68, 20], scale: -0.5 },
  { size: [68, 132, 36], accumulate: true },
  { size: [12, 20, 8], batch: [2, 3], gap: 4, accumulate: true, scale: 0.25 },
  { size: [132, 136, 68] },
  { size: [68, 132, 40], accumulate: true, scale: 2 },
  { size: [36, 100, 24], batch: [2, 2], gap: 4 },
  { size: [8, 12, 512], scale: 0.5 },
  { size: [8, 12, 512], accumulate: true, half: true },
  { size: [36, 68, 20], half: true },
  { size: [68, 132, 36], accumulate: true, half: true },
  { size: [12, 20, 8], batch: [2, 3], gap: 4, accumulate: true, scale: 0.25, half: true },
  { size: [64, 128, 64], half: true },
  { size: [132, 200, 40], batch: [1, 2], gap: 8, half: true },
  { size: [33, 67, 5], accumulate: true, half: true },
  { size: [5, 17, 1], batch: [3, 2], gap: 3, scale: 3, half: true },
  { size: [1, 1, 1] },
  { size: [33, 67, 5], accumulate: true, scale: 2 },
  { size: [66, 3, 18] },
  { size: [5, 17, 1], batch: [3, 2], gap: 3, scale: 3 },
  { size: [7, 40, 6], batch: [1, 4], gap: 1, accumulate: true },
  { size: [5, 17, 21], sampleRows: 7, gap: 3, scale: -2 },
  { size: [33, 66, 15], sampleRows: 5, accumulate: true },
  { size: [12, 20, 24], sampleRows: 8, accumulate: true, scale: 0.5, half: true },
  { size: [33, 7, 9], sampleRows: 9, half: true },
];
const { candidates } = matmulOperation;

for (const candidate of candidates) {
  for (const [transposeA, transposeB] of transposes) {
    test(`${candidate.name} agrees with float64, ${sign(transposeA)}${sign(transposeB)}`, async (t) => {
      const { info } = (await device()).gpu;
      let supported = 0;
      for (const [seed, each] of cases.entries()) {
        if (each.half && !info.f16) continue;
        if (info.driver === "system" && info.f16 && spared(candidate, transposeA, transposeB, each)) continue;
        if (await check(candidate, each, transposeA, transposeB, seed)) supported++;
      }
      if (supported === 0) t.skip(`not for ${info.name}`);
    });
  }
}

/**
 * lavapipe compiles a kernel for each pair of transposes and element types, in up to 3 s: there a pair is tested with f32 or with
 * f16, and each size of the large tiles with one pair, which together see both kinds of each operand.
 */
function spared(
  { name }: Candidate<Problem>,
  transposeA: boolean,
  transposeB: boolean,
  { half = false }: Case,
): boolean {
  if (name.startsWith("matmul_tile")) {
    return half !== name.endsWith("/128") || transposeA !== half || transposeB !== half;
  }
  return half === (transposeA === transposeB);
}

/** Runs a case on a candidate and compares every element of the output's tensor, also those between the matrices. */
async function check(
  candidate: Candidate<Problem>,
  each: Case,
  transposeA: boolean,
  transposeB: boolean,
  seed: number,
) {
  const on = await device();
  const { size: [m, n, k], batch = [1, 1], gap = 0, accumulate = false, scale = 1, sampleRows, half } = each;
  const dtypes = half ? halfTypes[sign(transposeA) + sign(transposeB)] : [];
  const a = await operand(transposeA ? k : m, transposeA ? m : k, batch, gap, seed, dtypes[1]);
  const b = await operand(transposeB ? n : k, transposeB ? k : n, batch, gap, seed + 100, dtypes[2]);
  const out = await operand(m, n, batch, gap, seed + 200, dtypes[0], !accumulate);
  const problem: Problem = { m, n, k, batch, out, a, b, transposeA, transposeB, accumulate, scale, sampleRows };
  const supported = candidate.supports(on.gpu.info, problem);
  if (supported) {
    candidate.record(problem);
    const actual = await toArray(out.tensor), expected = reference(problem, a.data, b.data, out.data);
    for (let i = 0; i < expected.length; i++) {
      const rounding = dtypes[0] === "f16" ? Math.abs(expected[i]) * 2 ** -11 + 2 ** -24 : 0; // of the store
      const near = Math.abs(actual[i] - expected[i]) <= 2e-6 * Math.abs(scale) * Math.sqrt(k) * 10 + rounding;
      if (!near && !(Number.isNaN(actual[i]) && Number.isNaN(expected[i]))) {
        assert.fail(`${JSON.stringify(each)}: element ${i} is ${actual[i]} where ${expected[i]} was expected`);
      }
    }
  }
  release(out.tensor, a.tensor, b.tensor);
  return supported;
}

/** Matrices as attention heads are: the second batch axis side by side in the columns, the first one below the other. */
async function operand(
  rows: number,
  columns: number,
  batch: readonly [number, number],
  gap: number,
  seed: number,
  dtype: DType = "f32",
  nan = false,
): Promise<Layout & { data: Float32Array }> {
  const rowStride = batch[1] * (columns + gap);
  let data = normal(gap + batch[0] * rows * rowStride, seed);
  if (nan) data.fill(NaN);
  if (dtype === "f16") data = fromHalf(toHalf(data));
  return {
    tensor: tensor(await device(), [data.length], data, dtype),
    data,
    rowStride,
    offset: gap,
    strides: [rows * rowStride, columns + gap],
  };
}

/** The definition, in float64. */
function reference(problem: Problem, a: Float32Array, b: Float32Array, out: Float32Array): Float64Array {
  const { m, n, k, batch, transposeA, transposeB, accumulate, scale } = problem;
  const result = Float64Array.from(out);
  const at = (layout: Layout, i: number, j: number, row: number, column: number) =>
    layout.offset + i * layout.strides[0] + j * layout.strides[1] + row * layout.rowStride + column;
  for (let i = 0; i < batch[0]; i++) {
    for (let j = 0; j < batch[1]; j++) {
      for (let row = 0; row < m; row++) {
        for (let column = 0; column < n; column++) {
          let sum = 0;
          for (let l = 0; l < k; l++) {
            sum += a[transposeA ? at(problem.a, i, j, l, row) : at(problem.a, i, j, row, l)] *
              b[transposeB ? at(problem.b, i, j, column, l) : at(problem.b, i, j, l, column)];
          }
          const place = at(problem.out, i, j, row, column);
          result[place] = (accumulate ? result[place] : 0) + scale * sum;
        }
      }
    }
  }
  return result;
}

test("matmul() folds the leading axes of its operands into rows", async () => {
  const on = await device();
  const x = tensor(on, [2, 3, 2], Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]));
  const w = tensor(on, [2, 2], Float32Array.from([1, 10, 100, 1000]));
  const y = dirty(on, [2, 3, 2]);
  matmul(y, x, w);
  await assertTensor(y, [201, 2010, 403, 4030, 605, 6050, 807, 8070, 1009, 10090, 1211, 12110]);
  const dw = tensor(on, [2, 2], Float32Array.from([1, 2, 3, 4]));
  matmul(dw, x, x, { transposeA: true, accumulate: true, scale: 0.5 });
  await assertTensor(dw, [1 + 143, 2 + 161, 3 + 161, 4 + 182]);
});

test("matmul() reaches every row of a matrix that needs more than 65,535 workgroups", async () => {
  const on = await device();
  const rows = 16 * 65_535 + 7, a = normal(rows, 1);
  const y = dirty(on, [rows, 1]);
  matmul(y, tensor(on, [rows, 1], a), tensor(on, [1, 1], Float32Array.of(2)));
  await assertTensor(y, a.map((value) => 2 * value), 0);
});

test("products per sample beyond 128 MiB of scratch are made and added up some samples at a time", async () => {
  const on = await device();
  const side = 1024, samples = 40; // 4 MiB each
  const a = normal(samples * side, 1), b = normal(samples * side, 2);
  const [x, dy] = [a, b].map((data) => tensor(on, [samples, side], data));
  const old = normal(side * side, 3), out = tensor(on, [side, side], old);
  on.ledger.resetPeak();
  withCandidate(
    "per-sample",
    () => matmul(out, x, dy, { transposeA: true, accumulate: true, sampleRows: 1 }),
  );
  assert.equal(on.ledger.peak.workspace, 2 ** 27);
  assert.equal(on.ledger.live.workspace, 0);
  const expected = Float64Array.from(old);
  for (let sample = 0; sample < samples; sample++) {
    for (let row = 0; row < side; row++) {
      const factor = a[sample * side + row];
      for (let column = 0; column < side; column++) expected[row * side + column] += factor * b[sample * side + column];
    }
  }
  await assertTensor(out, expected);
  release(x, dy);
});

test("a product per sample is taken where it is asked for, and nowhere else", async () => {
  const on = await device();
  const layout: Layout = { tensor: dirty(on, [64]), rowStride: 4, offset: 0, strides: [0, 0] };
  const problem: Problem = {
    ...{ m: 4, n: 4, k: 16, batch: [1, 1], out: layout, a: layout, b: layout, sampleRows: 4 },
    ...{ transposeA: true, transposeB: false, accumulate: true, scale: 1 },
  };
  const { gpu } = on, perSample = candidates.find(({ name }) => name === "per-sample")!;
  const chosen = () => matmulOperation.choose(gpu, problem).name;
  assert.notEqual(chosen(), "per-sample");
  withCandidate("per-sample", () => assert.equal(chosen(), "per-sample"));
  assert.ok(perSample.hopeless!(gpu.info, problem), "calibration passes it over");
  for (const sampleRows of [undefined, 5, 2.5, 0, NaN]) {
    assert.ok(!perSample.supports(gpu.info, { ...problem, sampleRows }), `${sampleRows} rows of a sample`);
  }
  assert.ok(!perSample.supports(gpu.info, { ...problem, batch: [2, 1] }));
  release(layout.tensor);
});

test("matmulBatched() uses one matrix for all at a stride of 0", async () => {
  const on = await device();
  const matrix = { rows: 1, columns: 2, rowStride: 2, offset: 0 };
  const a = { ...matrix, tensor: tensor(on, [2, 2], Float32Array.of(1, 2, 3, 4)), strides: [2, 0] as const };
  const b = { ...matrix, tensor: tensor(on, [1, 2], Float32Array.of(10, 100)), strides: [0, 0] as const };
  const y = { ...matrix, columns: 1, tensor: dirty(on, [2]), strides: [1, 0] as const };
  matmulBatched(y, a, b, [2, 1], { transposeB: true });
  await assertTensor(y.tensor, [210, 430]);
});

test("matmul() rejects shapes that do not fit, naming them all", async () => {
  const on = await device();
  const a = dirty(on, [2, 2, 5]), b = dirty(on, [5, 3]);
  assert.throws(() => matmul(dirty(on, [4, 4]), a, b), /matmul: \[4, 5\] times \[5, 3\] does not give \[4, 4\]/);
  assert.throws(
    () => matmul(dirty(on, [4, 3]), a, b, { transposeA: true }),
    /matmul: \[4, 5\] transposed times \[5, 3\] does not give \[4, 3\]/,
  );
});

test("matmulBatched() rejects a matrix that reaches beyond its tensor", async () => {
  const on = await device();
  const inside = (shape: number[], offset: number) =>
    ({ tensor: dirty(on, shape), rows: 2, columns: 2, rowStride: 2, offset, strides: [4, 0] }) as const;
  assert.throws(
    () => matmulBatched(inside([3, 4], 0), inside([3, 4], 0), inside([3, 4], 1), [3, 1]),
    /matmulBatched: \[3,1\] matrices \[2, 2\] of b end at element 13 of a tensor of shape \[3,4\]/,
  );
});

test("the rule for matmul() takes workgroup memory on a GPU and registers on a processor, scalars where fours do not fit", async () => {
  const on = await device();
  const layout: Layout = { tensor: dirty(on, [16]), rowStride: 4, offset: 0, strides: [0, 0] };
  const even: Problem = {
    ...{ m: 4, n: 4, k: 4, batch: [1, 1], out: layout, a: layout, b: layout },
    ...{ transposeA: false, transposeB: false, accumulate: false, scale: 1 },
  };
  const odd: Problem = { ...even, b: { ...layout, offset: 2 } };
  const gpu: GpuInfo = {
    ...{ driver: "gpu", kind: "gpu", implementation: "dawn", name: "a GPU", identity: "a GPU", vendor: "nvidia" },
    ...{ software: false, subgroupSize: 32, timestamps: true, f16: true, matrixUnits: true, dry: false },
  };
  const processor: GpuInfo = { ...gpu, kind: "lavapipe", software: true, subgroupSize: 8 };
  const bare: GpuInfo = { ...processor, subgroupSize: 0 };
  const swiftShader: GpuInfo = { ...processor, kind: "swiftshader", subgroupSize: 4 };
  const rule = (info: GpuInfo, problem: Problem) => matmulOperation.usual(info, problem).name;
  assert.equal(rule(gpu, even), "matmul_workgroup:workgroupTile");
  assert.equal(rule(processor, even), "matmul_subgroup:broadcast");
  assert.equal(rule(processor, odd), "matmul_subgroup:broadcastScalars");
  assert.equal(rule(swiftShader, { ...even, m: 12, k: 8 }), "matmul_quad:quads");
  assert.equal(rule(swiftShader, { ...even, m: 8, k: 8 }), "matmul_registers:vectors");
  assert.equal(rule(swiftShader, { ...even, m: 12 }), "matmul_subgroup:broadcast");
  assert.equal(rule(swiftShader, even), "matmul_registers:scalars");
  assert.equal(rule({ ...processor, subgroupSize: 4 }, { ...even, k: 8 }), "matmul_subgroup:broadcast");
  assert.equal(rule(bare, even), "matmul_registers:vectors");
  assert.equal(rule(bare, odd), "matmul_registers:scalars");
});
