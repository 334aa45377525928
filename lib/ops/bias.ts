/** A vector added to every row, and its gradient, the sums of the columns. */
import { kernel } from "../gpu/kernel.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowKernel, rowOperation, singleOperation } from "./variants.ts";

const addKernel = rowKernel("bias", "add");
const sumKernels = {
  plain: kernel("column_sum", "sum"),
  vec4: kernel("column_sum", "sum4"),
  gather: kernel("column_sum", "gather"),
};

/** Rows that one invocation of a GPU adds up. */
const blockRows = 32;

/** Writes the sums of the columns of a few rows. out: [D]; rows: [R, D]. */
export function columnTotals(out: Tensor, rows: Tensor): void {
  expectShape("columnTotals", "out", out, [widthOf(rows)]);
  columnTotalsOperation.run([out, rows]);
}

const columnTotalsOperation = singleOperation<[out: Tensor, rows: Tensor]>({
  name: "columnTotals",
  kernel: "column_sum:sum",
  outputs: 1,
  record(out, rows) {
    const count = rowsOf(rows), width = widthOf(rows);
    rows.device.dispatch(
      sumKernels.plain,
      { rows: count, width, block: count, accumulate: 0 },
      [out, rows],
      lanes(width),
    );
  },
});

/** `y += bias` for each row, in place. y: [R, D]; bias: [D]. Its gradient with respect to what y was is the output's. */
export function addBias(y: Tensor, bias: Tensor): void {
  expectShape("addBias", "bias", bias, [widthOf(y)], "float");
  addBiasRows.run([y, bias]);
}

const addBiasRows = rowOperation<[y: Tensor, bias: Tensor]>({
  name: "addBias",
  outputs: 1,
  rows: 0,
  bytes: ([y, bias]) => 2 * y.bytes + bias.bytes,
  record(variant, y, bias) {
    const rows = rowsOf(y), width = widthOf(y);
    const { kernel, perLane, grid } = addKernel(y.device, rows, width, variant);
    y.device.dispatch(kernel, { rows, width: width / perLane }, [y, bias], grid);
  },
});

/** The gradient of {@link addBias} with respect to the bias, added to `dbias`: the sum over the rows of dy. dbias: [D]; dy: [R, D]. */
export function columnSum(dbias: Tensor, dy: Tensor): void {
  expectShape("columnSum", "dbias", dbias, [widthOf(dy)]);
  columnSumRows.run([dbias, dy]);
}

const columnSumRows = rowOperation<[dbias: Tensor, dy: Tensor]>({
  name: "columnSum",
  outputs: 1,
  rows: 1,
  record(variant, dbias, dy) {
    const rows = rowsOf(dy), width = widthOf(dy);
    const { device } = dy;
    // A GPU has far more invocations than a narrow tensor has columns: blocks of rows go side by side, and one adds up their sums.
    const block = variant === "group" ? Math.max(blockRows, Math.ceil(rows / 65_535)) : rows;
    if (block >= rows) {
      const [entry, columns] = variant === "vec4" ? ["vec4", width / 4] as const : ["plain", width] as const;
      const parameters = { rows, width: columns, block: rows, accumulate: 1 };
      device.dispatch(sumKernels[entry], parameters, [dbias, dy], lanes(columns));
      return;
    }
    const blocks = Math.ceil(rows / block);
    const sums = empty(device, [blocks, width], "workspace");
    device.dispatch(sumKernels.plain, { rows, width, block, accumulate: 0 }, [sums, dy], lanes(width * blocks));
    device.dispatch(sumKernels.gather, { rows: blocks, width, block: 0, accumulate: 0 }, [dbias, sums], lanes(width));
    release(sums); // reused at the earliest by a kernel recorded after these
  },
});
