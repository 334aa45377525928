/** ReLU. It has no parameters: p1 only. */
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { strides } from "./elementwise.ts";
import { expectShape } from "./shapes.ts";

const forward = { 1: kernel("relu", "forward"), 4: kernel("relu", "forward4") };
const sum = { 1: kernel("relu", "sum"), 4: kernel("relu", "sum4") };
const backward = { 1: kernel("relu", "backward"), 4: kernel("relu", "backward4") };

/** `y = max(x, 0)`. y, x: of one shape. */
export function relu(y: Tensor, x: Tensor): void {
  expectShape("relu", "y", y, x.shape, "float");
  run(forward, [y, x]);
}

/** `y = max(a + b, 0)`; backward: {@link reluBackward}, for the gradient with respect to either. All of one shape. */
export function addRelu(y: Tensor, a: Tensor, b: Tensor): void {
  expectShape("addRelu", "a", a, y.shape, "float");
  expectShape("addRelu", "b", b, y.shape, "float");
  run(sum, [y, a, b]);
}

/** The gradient of {@link relu} with respect to x, from its *result* y: `dx = dy` where y > 0, else 0. All of one shape. */
export function reluBackward(dx: Tensor, dy: Tensor, y: Tensor): void {
  expectShape("reluBackward", "dx", dx, y.shape, "float");
  expectShape("reluBackward", "dy", dy, y.shape, "float");
  run(backward, [dx, dy, y]);
}

function run(kernels: typeof forward, views: Tensor[]) {
  const [{ device, shape }] = views;
  const size = sizeOf(shape);
  const perLane = size % 4 === 0 ? 4 : 1;
  device.dispatch(kernels[perLane], [size / perLane], views, strides(device, size / perLane));
}
