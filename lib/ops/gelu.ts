/** GELU, exact and approximate. It has no parameters: p1 only. */
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { strides } from "./elementwise.ts";
import { expectShape } from "./shapes.ts";
import { singleOperation } from "./variants.ts";

/** Which GELU: `erf` is exact (BERT), `tanh` its approximation (GPT-2). */
export type GeluForm = "erf" | "tanh";

const kernels = (entry: string, TANH: number) => ({
  1: kernel("gelu", entry, { TANH }),
  4: kernel("gelu", `${entry}4`, { TANH }),
});
const forward = { erf: kernels("forward", 0), tanh: kernels("forward", 1) };
const backward = { erf: kernels("backward", 0), tanh: kernels("backward", 1) };

/**
 * `out = x * P(n < x)` for a standard normal n (Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016). out, x: of one shape.
 */
export function gelu(out: Tensor, x: Tensor, form: GeluForm): void {
  expectShape("gelu", "out", out, x.shape, "float");
  geluOperation.run([out, x, form]);
}

const geluOperation = singleOperation<[out: Tensor, x: Tensor, form: GeluForm]>({
  name: "gelu",
  kernel: "gelu:forward",
  outputs: 1,
  record: (out, x, form) => record(forward[form], [out, x]),
});

/** The gradient of {@link gelu} with respect to x. dx, dout, x: of one shape. */
export function geluBackward(dx: Tensor, dout: Tensor, x: Tensor, form: GeluForm): void {
  expectShape("geluBackward", "dx", dx, x.shape, "float");
  expectShape("geluBackward", "dout", dout, x.shape, "float");
  backwardOperation.run([dx, dout, x, form]);
}

const backwardOperation = singleOperation<[dx: Tensor, dout: Tensor, x: Tensor, form: GeluForm]>({
  name: "geluBackward",
  kernel: "gelu:backward",
  outputs: 1,
  record: (dx, dout, x, form) => record(backward[form], [dx, x, dout]),
});

function record(kernels: typeof forward.erf, views: Tensor[]) {
  const [{ device, shape }] = views;
  const size = sizeOf(shape);
  const perLane = size % 4 === 0 ? 4 : 1;
  device.dispatch(kernels[perLane], { count: size / perLane }, views, strides(device, size / perLane));
}
