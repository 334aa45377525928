/** Token embedding: a lookup, and a scatter for its weight gradient. It has no input gradient: p2 only. */
import { sizeOf, type Tensor, writeArray } from "../tensor.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowKernel, rowOperation } from "./variants.ts";

const forward = rowKernel("embedding", "forward");
const backwardWeight = rowKernel("embedding", "backward_weight");

const later = 0x8000_0000;
const end = 0x7fff_ffff;

/**
 * What both passes need of a micro-batch's R tokens, as [2, R]: the tokens, then for each position the next position
 * with the same token (or 2^31 - 1), its top bit set where there is an earlier one. WebGPU has no atomic addition of
 * floats; along these chains the scatter needs none and gives the same bits in every run.
 */
export function packIds(ids: ArrayLike<number>): Uint32Array<ArrayBuffer> {
  const packed = new Uint32Array(2 * ids.length);
  const next = packed.subarray(ids.length).fill(end);
  packed.set(ids);
  const last = new Map<number, number>();
  for (let row = 0; row < ids.length; row++) {
    const before = last.get(ids[row]);
    if (before !== undefined) {
      next[before] = (next[before] & later) | row;
      next[row] |= later;
    }
    last.set(ids[row], row);
  }
  return packed;
}

/** `out[r] = table[ids[r]]`. out: [R, D]; ids: u32 [2, R] of {@link packIds}; table: [V, D]. */
export function embedding(out: Tensor, ids: Tensor, table: Tensor): void {
  const rows = rowsOf(out), width = widthOf(out);
  expectShape("embedding", "ids", ids, [2, rows], "u32");
  expectShape("embedding", "table", table, [rowsOf(table), width], "float");
  embeddingRows.run([out, ids, table]);
}

const embeddingRows = rowOperation<[out: Tensor, ids: Tensor, table: Tensor]>({
  name: "embedding",
  outputs: 1,
  rows: 0,
  bytes: ([out, ids]) => 2 * out.bytes + ids.bytes / 2, // each row is read, and written
  prepare: ([, ids, table]) => scatter(ids, rowsOf(table)),
  record(variant, out, ids, table) {
    const rows = rowsOf(out), width = widthOf(out);
    const { kernel, perLane, grid } = forward(out.device, rows, width, variant);
    out.device.dispatch(kernel, { rows, width: width / perLane }, [out, ids, table], grid);
  },
});

/**
 * The gradient of {@link embedding} with respect to the table, added to `dTable`: [V, D]. dy: [R, D]; ids: u32 [2, R] of
 * {@link packIds}.
 */
export function embeddingBackwardWeight(dTable: Tensor, dy: Tensor, ids: Tensor): void {
  const rows = rowsOf(dy), width = widthOf(dy);
  expectShape("embeddingBackwardWeight", "ids", ids, [2, rows], "u32");
  expectShape("embeddingBackwardWeight", "dTable", dTable, [rowsOf(dTable), width]);
  backwardWeightRows.run([dTable, dy, ids]);
}

const backwardWeightRows = rowOperation<[dTable: Tensor, dy: Tensor, ids: Tensor]>({
  name: "embeddingBackwardWeight",
  outputs: 1,
  rows: 1,
  bytes: ([, dy, ids]) => 3 * dy.bytes + ids.bytes, // about each row of the gradient is read and written, too
  prepare: ([dTable, , ids]) => scatter(ids, rowsOf(dTable)),
  record(variant, dTable, dy, ids) {
    const rows = rowsOf(dy), width = widthOf(dy);
    const { kernel, perLane, grid } = backwardWeight(dy.device, rows, width, variant);
    dy.device.dispatch(kernel, { rows, width: width / perLane }, [dTable, ids, dy], grid);
  },
});

/** Writes ids all over a table of `words` rows. The kernels need them well linked: along chains of zeros they never end. */
function scatter(ids: Tensor, words: number) {
  const rows = sizeOf(ids.shape) / 2;
  writeArray(ids, packIds(Array.from({ length: rows }, (_, row) => (row * 2_654_435_761) % words)));
}
