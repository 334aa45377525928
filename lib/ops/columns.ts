/** Columns of a tensor by themselves: of projections that lie side by side, one. */
import { UserError } from "../errors.ts";
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { strides } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { singleOperation } from "./variants.ts";

const take = kernel("columns", "take");

/** `y = x[:, start .. start + width]`. y: [R, width]; x: [R, D]. Has no backward here: matmulBatched reads and writes columns where they are. */
export function takeColumns(y: Tensor, x: Tensor, start: number): void {
  const width = widthOf(y), stride = widthOf(x);
  expectShape("takeColumns", "y", y, [rowsOf(x), width], "float");
  expectShape("takeColumns", "x", x, [rowsOf(x), stride], "float");
  if (!(Number.isInteger(start) && start >= 0 && start + width <= stride)) {
    throw new UserError(`takeColumns: ${width} columns from ${start} on are not within the ${stride} of x`);
  }
  takeOperation.run([y, x, start]);
}

const takeOperation = singleOperation<[y: Tensor, x: Tensor, start: number]>({
  name: "takeColumns",
  kernel: "columns:take",
  outputs: 1,
  record(y, x, start) {
    const count = sizeOf(y.shape);
    y.device.dispatch(take, { count, width: widthOf(y), stride: widthOf(x), start }, [y, x], strides(y.device, count));
  },
});
