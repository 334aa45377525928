/**
 * Numbers of a device beside those of the host: a driver may claim 16-bit floats and give zeros, and a comparison of its kernels
 * with one another would never tell.
 */
import type { Device } from "../../gpu/device.ts";
import { fromHalf, toHalf } from "../../half.ts";
import { add } from "../../ops/elementwise.ts";
import { matmul } from "../../ops/matmul.ts";
import { swiglu } from "../../ops/swiglu.ts";
import { generator } from "../../random.ts";
import { type DType, fromArray, release, sizeOf, type Tensor, toArray } from "../../tensor.ts";
import { firstLine } from "../../text.ts";
import type { ValueCheck } from "./diagnosis.ts";

/** Of the largest number: f32 sums may be taken in any order, f16 has 11 bits. */
const tolerances = { f32: 1e-5, f16: 2e-3 } as const;
/** No multiple of a tile, and even, so that vectors of two fit. */
const rows = 18, inner = 70, columns = 34;

/** What stands where results go. */
const stale = 1000;

/** Something that both can compute. */
interface Sum {
  readonly what: string;
  /** Shapes of what is read. */
  readonly reads: readonly (readonly number[])[];
  /** Shape of what is written. */
  readonly writes: readonly number[];
  record(out: Tensor, inputs: readonly Tensor[]): void;
  /** The same in double precision. */
  compute(inputs: readonly ArrayLike<number>[], at: number): number;
}

const sums: readonly Sum[] = [
  {
    what: "sums",
    reads: [[rows, columns], [rows, columns]],
    writes: [rows, columns],
    record: (out, [a, b]) => add(out, a, b),
    compute: ([a, b], at) => a[at] + b[at],
  },
  {
    what: "products of matrices",
    reads: [[rows, inner], [inner, columns]],
    writes: [rows, columns],
    record: (out, [a, b]) => matmul(out, a, b),
    compute([a, b], at) {
      const row = Math.floor(at / columns), column = at % columns;
      let sum = 0;
      for (let k = 0; k < inner; k++) sum += a[row * inner + k] * b[k * columns + column];
      return sum;
    },
  },
  {
    what: "exponentials",
    reads: [[rows, 2 * columns]],
    writes: [rows, columns],
    record: (out, [x]) => swiglu(out, x),
    compute([x], at) {
      const from = Math.floor(at / columns) * 2 * columns + at % columns;
      return x[from] / (1 + Math.exp(-x[from])) * x[from + columns];
    },
  },
];

/** Compares numbers of a device with the host's, in f32 and, where the device has it, in f16. */
export async function checkValues(device: Device): Promise<ValueCheck[]> {
  const checks: ValueCheck[] = [];
  for (const dtype of device.gpu.info.f16 ? ["f32", "f16"] as const : ["f32"] as const) {
    for (const sum of sums) {
      const problem = await compare(device, sum, dtype).catch((error) => {
        device.abandon();
        return firstLine(error);
      });
      checks.push({ what: sum.what, dtype, ...problem === undefined ? {} : { problem } });
    }
  }
  return checks;
}

/** What is wrong, if anything. */
async function compare(
  device: Device,
  { reads, writes, record, compute }: Sum,
  dtype: DType & ("f32" | "f16"),
): Promise<string | undefined> {
  const { normal } = generator("numbers of host and device");
  const given = reads.map((shape) => Float32Array.from({ length: sizeOf(shape) }, normal))
    .map((values) => dtype === "f16" ? fromHalf(toHalf(values)) : values);
  const inputs = reads.map((shape, index) => fromArray(device, shape, given[index], "workspace", dtype));
  // What an earlier run has left in this memory may be the right result.
  const out = fromArray(device, writes, new Float32Array(sizeOf(writes)).fill(stale), "workspace", dtype);
  try {
    record(out, inputs);
    const told = await toArray(out);
    let largest = 0, worst = 0, at = 0;
    for (let i = 0; i < told.length; i++) {
      const right = compute(given, i), error = Math.abs(told[i] - right);
      largest = Math.max(largest, Math.abs(right));
      if (!(error <= worst)) [worst, at] = [error, i]; // NaN counts as the worst
    }
    if (worst <= tolerances[dtype] * largest) return undefined;
    if (told.every((value) => value === stale)) return "nothing is written";
    return told.every((value) => value === 0)
      ? "all are 0"
      : `${told[at].toPrecision(4)} where it is ${compute(given, at).toPrecision(4)}`;
  } finally {
    release(out, ...inputs);
  }
}
