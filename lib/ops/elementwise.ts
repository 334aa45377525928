/** Elementwise operations. Every operand has as many elements as the result; shapes beyond that do not matter. */
import { floatBits } from "../gpu/gpu.ts";
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";

const addKernel = kernel("elementwise", "add");
const scaleKernel = kernel("elementwise", "scale");
const fillKernel = kernel("elementwise", "fill");

/** `out = a + b`. Its gradient with respect to either is the output's, so it has no backward of its own. */
export function add(out: Tensor, a: Tensor, b: Tensor): void {
  elements(out, a, b);
  out.device.dispatch(addKernel, [sizeOf(out.shape), 0], [out, a, b], lanes(sizeOf(out.shape)));
}

/** `out = factor * a`; backward: the same with the output's gradient. */
export function scale(out: Tensor, a: Tensor, factor: number): void {
  elements(out, a);
  out.device.dispatch(scaleKernel, [sizeOf(out.shape), floatBits(factor)], [out, a], lanes(sizeOf(out.shape)));
}

/** `out = value`, everywhere. */
export function fill(out: Tensor, value: number): void {
  out.device.dispatch(fillKernel, [sizeOf(out.shape), floatBits(value)], [out], lanes(sizeOf(out.shape)));
}

/** The grid for `count` invocations in workgroups of `size`, spread over two axes where one is too short (65,535). */
export function lanes(count: number, size = 64): [number, number] {
  const groups = Math.ceil(count / size);
  const rows = Math.ceil(groups / 65_535);
  return [Math.ceil(groups / rows), rows];
}

function elements(out: Tensor, ...operands: Tensor[]) {
  for (const operand of operands) {
    if (sizeOf(operand.shape) !== sizeOf(out.shape)) {
      throw new Error(`elementwise: shape [${operand.shape}] does not fit the result's [${out.shape}]`);
    }
  }
}
