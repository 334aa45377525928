/** Elementwise operations. Every operand has as many elements as the result; shapes beyond that do not matter. */
import { floatBits } from "../gpu/gpu.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { inVectors } from "./shapes.ts";

const addKernel = kernel("elementwise", "add");
const scaleKernel = kernel("elementwise", "scale");
const fillKernel = kernel("elementwise", "fill");

/** `out = a + b`. Its gradient with respect to either is the output's, so it has no backward of its own. */
export function add(out: Tensor, a: Tensor, b: Tensor): void {
  run("add", addKernel, 0, out, a, b);
}

/** `out = factor * a`; backward: the same with the output's gradient. */
export function scale(out: Tensor, a: Tensor, factor: number): void {
  run("scale", scaleKernel, factor, out, a);
}

/** `out = value`, everywhere. */
export function fill(out: Tensor, value: number): void {
  run("fill", fillKernel, value, out);
}

function run(operation: string, kernel: Kernel, value: number, out: Tensor, ...operands: Tensor[]) {
  const count = sizeOf(out.shape);
  for (const operand of operands) {
    if (sizeOf(operand.shape) !== count) {
      throw new Error(`${operation}: shape [${operand.shape}] does not fit the result's [${out.shape}]`);
    }
  }
  out.device.dispatch(
    kernel,
    [count, floatBits(value)],
    [out, ...operands].map(inVectors),
    lanes(Math.ceil(count / 4)),
  );
}

/** The grid for `count` invocations in workgroups of `size`, spread over two axes where one is too short (65,535). */
export function lanes(count: number, size = 64): [number, number] {
  const groups = Math.ceil(count / size);
  const rows = Math.ceil(groups / 65_535);
  return [Math.ceil(groups / rows), rows];
}
