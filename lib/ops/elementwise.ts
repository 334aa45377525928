/** Elementwise operations. Every operand has as many elements as the result; shapes beyond that do not matter. */
import { UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { axis, singleOperation, spread } from "./variants.ts";

/** Kernels by the elements that one step of an invocation takes. */
type ByWidth = Record<1 | 4, Kernel>;
const addKernels: ByWidth = { 1: kernel("elementwise", "add"), 4: kernel("elementwise", "add4") };
const scaleKernels: ByWidth = { 1: kernel("elementwise", "scale"), 4: kernel("elementwise", "scale4") };
const fillKernels: ByWidth = { 1: kernel("elementwise", "fill"), 4: kernel("elementwise", "fill4") };

/** `out = a + b`. Its gradient with respect to either is the output's, so it has no backward of its own. */
export function add(out: Tensor, a: Tensor, b: Tensor): void {
  check("add", out, a, b);
  addOperation.run([out, a, b]);
}

/** `out = factor * a`; backward: the same with the output's gradient. */
export function scale(out: Tensor, a: Tensor, factor: number): void {
  check("scale", out, a);
  scaleOperation.run([out, a, factor]);
}

/** `out = value`, everywhere. */
export function fill(out: Tensor, value: number): void {
  fillOperation.run([out, value]);
}

const addOperation = singleOperation<[out: Tensor, a: Tensor, b: Tensor]>({
  name: "add",
  kernel: "elementwise:add",
  outputs: 1,
  record: (out, a, b) => record(addKernels, 0, out, a, b),
});

const scaleOperation = singleOperation<[out: Tensor, a: Tensor, factor: number]>({
  name: "scale",
  kernel: "elementwise:scale",
  outputs: 1,
  record: (out, a, factor) => record(scaleKernels, factor, out, a),
});

const fillOperation = singleOperation<[out: Tensor, value: number]>({
  name: "fill",
  kernel: "elementwise:fill",
  outputs: 1,
  record: (out, value) => record(fillKernels, value, out),
});

function record(kernels: ByWidth, value: number, out: Tensor, ...operands: Tensor[]) {
  const size = sizeOf(out.shape);
  const perLane = size % 4 === 0 ? 4 : 1;
  const count = size / perLane;
  out.device.dispatch(kernels[perLane], { count, value }, [out, ...operands], strides(out.device, count));
}

function check(operation: string, out: Tensor, ...operands: Tensor[]) {
  const size = sizeOf(out.shape);
  for (const operand of operands) {
    if (sizeOf(operand.shape) !== size) {
      throw new UserError(`${operation}: shape [${operand.shape}] does not fit the result's [${out.shape}]`);
    }
  }
}

/**
 * The grid for `count` invocations in workgroups of `size`, spread over two axes where one is too short (65,535): an invocation's
 * number is `id.x + id.y * num_workgroups.x * size`, and the last ones may be beyond `count`.
 */
export function lanes(count: number, size = 64): [number, number] {
  return spread(Math.ceil(count / size));
}

/**
 * The grid for a kernel whose invocations, 64 to a workgroup, go over `count` steps in strides of the grid. A processor
 * gets few workgroups: starting one costs as much as 100 elements.
 */
export function strides(device: Device, count: number): [number] {
  return [Math.min(Math.ceil(count / 64), device.gpu.info.software ? Math.min(16, axis.most) : axis.most)];
}
