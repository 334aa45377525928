/** What the tests of operations share: one device, seeded numbers, comparisons. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import type { Device } from "../../lib/gpu/device.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { type AnyOperation, operations, withCandidate as withCandidateOn } from "../../lib/ops/choice.ts";
import type { RowVariant } from "../../lib/ops/variants.ts";
import { type DType, fromArray, release, sizeOf, type Tensor, toArray } from "../../lib/tensor.ts";

let set: DeviceSet | undefined;

/** The device of this test file, on the driver that the environment asks for. */
export async function device(): Promise<Device> {
  set ??= await openDevices(1);
  return set.devices[0];
}

/** To be called after the last test, or the process stays. */
export function close(): void {
  set?.close();
  set = undefined;
}

/** Every operation of `lib/ops`, and those of other folders that are loaded: no list that a new one could be left out of. */
export async function everyOperation(): Promise<readonly AnyOperation[]> {
  const folder = new URL("../../lib/ops/", import.meta.url);
  for (const file of readdirSync(folder)) await import(new URL(file, folder).href);
  return operations();
}

/** Numbers from a normal distribution, the same in every run (mulberry32, Box and Muller), rounded to float32. */
export function normal(count: number, seed: number): Float32Array {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

/** Token ids below `limit`, the same in every run. */
export function tokens(count: number, limit: number, seed: number): Uint32Array {
  return Uint32Array.from(normal(count, seed), (value) => Math.floor(Math.abs(value) * 1e6) % limit);
}

/** A tensor of this content. */
export function tensor(
  device: Device,
  shape: readonly number[],
  data: Float32Array | Uint32Array,
  dtype?: DType,
): Tensor {
  return fromArray(device, shape, data, "activations", dtype);
}

/** A tensor full of NaN, as an output that must be written everywhere. */
export function dirty(device: Device, shape: readonly number[], dtype?: DType): Tensor {
  return tensor(device, shape, new Float32Array(sizeOf(shape)).fill(NaN), dtype);
}

/** Fails unless every element is within `tolerance` of the expected one, measured against the largest expected. */
export function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 2e-6, what = ""): void {
  assert.equal(actual.length, expected.length, `${what}: lengths`);
  let largest = 1e-30;
  for (let i = 0; i < expected.length; i++) largest = Math.max(largest, Math.abs(expected[i]));
  for (let i = 0; i < expected.length; i++) {
    if (!(Math.abs(actual[i] - expected[i]) <= tolerance * largest)) {
      assert.fail(`${what}[${i}] is ${actual[i]} where ${expected[i]} was expected (largest ${largest})`);
    }
  }
}

/** Reads the tensor, compares, and releases it. */
export async function assertTensor(
  tensor: Tensor,
  expected: ArrayLike<number>,
  tolerance?: number,
  what?: string,
): Promise<void> {
  assertClose(await toArray(tensor), expected, tolerance, what);
  release(tensor);
}

/** The variants of row-wise kernels that can serve rows of `width`. */
export function rowVariants(width: number): RowVariant[] {
  return width % 4 === 0 ? ["plain", "vec4", "group"] : ["plain", "group"];
}

/**
 * Checks an analytic gradient by central differences: `f` maps a vector to a number, `gradient` is claimed to be its
 * derivative at `x`, all in float64.
 */
export function assertGradient(
  f: (x: Float64Array) => number,
  x: ArrayLike<number>,
  gradient: ArrayLike<number>,
  what: string,
  tolerance = 1e-7,
): void {
  const at = Float64Array.from(x);
  const differences = at.map((value, i) => {
    const h = 1e-5;
    at[i] = value + h;
    const above = f(at);
    at[i] = value - h;
    const below = f(at);
    at[i] = value;
    return (above - below) / (2 * h);
  });
  assertClose(gradient, differences, tolerance, what);
}

/** Sum of products: a scalar loss whose gradient is `weights`. */
export function weigh(values: ArrayLike<number>, weights: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * weights[i];
  return sum;
}

/** Records on the device of this test file with the candidates of this name wherever they can serve. */
export function withCandidate(name: string, record: () => void): void {
  withCandidateOn(set!.devices[0].gpu, name, record);
}
