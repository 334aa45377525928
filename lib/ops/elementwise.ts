/** Elementwise operations. Every operand has as many elements as the result; shapes beyond that do not matter. */
import type { Device } from "../gpu/device.ts";
import { floatBits } from "../gpu/gpu.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { spread } from "./variants.ts";

/** Kernels by the elements that one step of an invocation takes. */
type ByWidth = Record<1 | 4, Kernel>;
const addKernels: ByWidth = { 1: kernel("elementwise", "add"), 4: kernel("elementwise", "add4") };
const scaleKernels: ByWidth = { 1: kernel("elementwise", "scale"), 4: kernel("elementwise", "scale4") };
const fillKernels: ByWidth = { 1: kernel("elementwise", "fill"), 4: kernel("elementwise", "fill4") };

/** `out = a + b`. Its gradient with respect to either is the output's, so it has no backward of its own. */
export function add(out: Tensor, a: Tensor, b: Tensor): void {
  run("add", addKernels, 0, out, a, b);
}

/** `out = factor * a`; backward: the same with the output's gradient. */
export function scale(out: Tensor, a: Tensor, factor: number): void {
  run("scale", scaleKernels, factor, out, a);
}

/** `out = value`, everywhere. */
export function fill(out: Tensor, value: number): void {
  run("fill", fillKernels, value, out);
}

function run(operation: string, kernels: ByWidth, value: number, out: Tensor, ...operands: Tensor[]) {
  const size = sizeOf(out.shape);
  for (const operand of operands) {
    if (sizeOf(operand.shape) !== size) {
      throw new Error(`${operation}: shape [${operand.shape}] does not fit the result's [${out.shape}]`);
    }
  }
  const perLane = size % 4 === 0 ? 4 : 1;
  const count = size / perLane;
  out.device.dispatch(kernels[perLane], [count, floatBits(value)], [out, ...operands], strides(out.device, count));
}

/** The grid for `count` invocations in workgroups of `size`, spread over two axes where one is too short (65,535). */
export function lanes(count: number, size = 64): [number, number] {
  return spread(Math.ceil(count / size));
}

/**
 * The grid for a kernel whose invocations, 64 to a workgroup, go over `count` steps in strides of the grid. A processor
 * gets few workgroups: starting one costs as much as 100 elements.
 */
export function strides(device: Device, count: number): [number] {
  return [Math.min(Math.ceil(count / 64), device.gpu.info.software ? 16 : 65_535)];
}
