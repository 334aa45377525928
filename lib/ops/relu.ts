/** ReLU. It has no parameters: p1 only. */
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { strides } from "./elementwise.ts";
import { expectShape } from "./shapes.ts";
import { singleOperation } from "./variants.ts";

const forward = { 1: kernel("relu", "forward"), 4: kernel("relu", "forward4") };
const sum = { 1: kernel("relu", "sum"), 4: kernel("relu", "sum4") };
const backward = { 1: kernel("relu", "backward"), 4: kernel("relu", "backward4") };

/** `y = max(x, 0)`, NaN where x is NaN. y, x: of one shape. */
export function relu(y: Tensor, x: Tensor): void {
  expectShape("relu", "y", y, x.shape, "float");
  reluOperation.run([y, x]);
}

const reluOperation = singleOperation<[y: Tensor, x: Tensor]>({
  name: "relu",
  kernel: "relu:forward",
  outputs: 1,
  record: (...views) => record(forward, views),
});

/** `y = max(a + b, 0)`, NaN where the sum is; backward: {@link reluBackward}, for the gradient with respect to either. All of one shape. */
export function addRelu(y: Tensor, a: Tensor, b: Tensor): void {
  expectShape("addRelu", "a", a, y.shape, "float");
  expectShape("addRelu", "b", b, y.shape, "float");
  addReluOperation.run([y, a, b]);
}

const addReluOperation = singleOperation<[y: Tensor, a: Tensor, b: Tensor]>({
  name: "addRelu",
  kernel: "relu:sum",
  outputs: 1,
  record: (...views) => record(sum, views),
});

/** The gradient of {@link relu} with respect to x, from its *result* y: `dx = dy` where y > 0 or NaN, else 0. All of one shape. */
export function reluBackward(dx: Tensor, dy: Tensor, y: Tensor): void {
  expectShape("reluBackward", "dx", dx, y.shape, "float");
  expectShape("reluBackward", "dy", dy, y.shape, "float");
  reluBackwardOperation.run([dx, dy, y]);
}

const reluBackwardOperation = singleOperation<[dx: Tensor, dy: Tensor, y: Tensor]>({
  name: "reluBackward",
  kernel: "relu:backward",
  outputs: 1,
  record: (...views) => record(backward, views),
});

function record(kernels: typeof forward, views: Tensor[]) {
  const [{ device, shape }] = views;
  const size = sizeOf(shape);
  const perLane = size % 4 === 0 ? 4 : 1;
  device.dispatch(kernels[perLane], { count: size / perLane }, views, strides(device, size / perLane));
}
