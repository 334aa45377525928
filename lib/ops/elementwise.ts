/** Elementwise operations. Every operand has as many elements as the result; shapes beyond that do not matter. */
import { floatBits } from "../gpu/gpu.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";

/** Kernels by the elements that one invocation takes. */
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
  out.device.dispatch(kernels[perLane], [count, floatBits(value)], [out, ...operands], lanes(count, 256));
}

/** The grid for `count` invocations in workgroups of `size`, spread over two axes where one is too short (65,535). */
export function lanes(count: number, size = 64): [number, number] {
  const groups = Math.ceil(count / size);
  const rows = Math.ceil(groups / 65_535);
  return [Math.ceil(groups / rows), rows];
}
