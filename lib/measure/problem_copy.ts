/** Copies of problems: the same shapes with random content on a device of choice. */
import type { Device } from "../gpu/device.ts";
import type { Observed } from "../ops/choice.ts";
import { empty, release, sizeOf, type Tensor, toArray, writeArray } from "../tensor.ts";
import { generator } from "../random.ts";

/** A problem that can be run any number of times. */
export interface ProblemCopy {
  /** Like the original, with tensors of its own. */
  readonly problem: object;
  /** Gives the tensors that are written their first content again. */
  reset(): void;
  /** What the tensors that are written hold now, one after the other. */
  results(): Promise<ArrayLike<number>[]>;
  /** Tensors that are only read. */
  readonly reads: number;
  /** Bytes of all tensors, each once. */
  readonly bytes: number;
  /** Frees the tensors. */
  release(): void;
}

/** A copy of `problem` on `device`. Tensors that are the same one stay so; numbers are normally distributed. */
export function copyProblem(device: Device, { operation, problem }: Observed): ProblemCopy {
  const copies = new Map<string, Tensor>();
  const map = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(map);
    if (typeof value !== "object" || value === null) return value;
    if (!isTensor(value)) return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, map(each)]));
    const key = `${value.storage.id} ${value.offset} ${value.shape} ${value.dtype}`;
    let copy = copies.get(key);
    if (!copy) {
      copy = empty(device, value.shape, "workspace", value.dtype);
      copies.set(key, copy);
    }
    return copy;
  };
  const copy = map(problem) as object;
  const written = new Set(operation.outputs(copy));
  const tensors = [...copies.values()];
  tensors.forEach((tensor, index) => {
    if (!written.has(tensor)) fillRandomly(tensor, index);
  });
  const reset = () => {
    tensors.forEach((tensor, index) => {
      if (written.has(tensor)) fillRandomly(tensor, index);
    });
    operation.prepare?.(copy);
  };
  reset();
  return {
    problem: copy,
    reset,
    results: () => Promise.all([...written].map(numbersOf)),
    reads: tensors.filter((tensor) => !written.has(tensor)).length,
    bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
    release: () => release(...tensors),
  };
}

async function numbersOf(tensor: Tensor): Promise<ArrayLike<number>> {
  return tensor.dtype === "u32" ? new Uint32Array(await tensor.device.read(tensor)) : await toArray(tensor);
}

function isTensor(value: object): value is Tensor {
  return "storage" in value && "device" in value && "shape" in value;
}

/** Numbers that repeat, with a period that no row has: large tensors would take longer to make than to compute with. */
const period = 65_521;
let numbers: Float32Array | undefined;

function fillRandomly(tensor: Tensor, index: number) {
  const size = sizeOf(tensor.shape);
  if (tensor.dtype === "u32") return writeArray(tensor, new Uint32Array(size));
  if (!numbers) {
    const { normal } = generator("copies of problems");
    numbers = Float32Array.from({ length: period }, normal);
  }
  const values = new Float32Array(size);
  const shift = index * 7919 % period; // no two tensors alike
  for (let at = -shift; at < size; at += period) {
    const from = Math.max(0, -at);
    values.set(numbers.subarray(from, Math.min(period, size - at)), at + from);
  }
  writeArray(tensor, values);
}
