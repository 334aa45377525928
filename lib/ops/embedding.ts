/** Token embedding: a lookup, and a scatter for its weight gradient. It has no input gradient: p2 only. */
import type { Tensor } from "../tensor.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowKernel } from "./variants.ts";

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
  const { kernel, perLane, grid } = forward(out.device, rows, width);
  out.device.dispatch(kernel, [rows, width / perLane], [out, ids, table], grid);
}

/**
 * The gradient of {@link embedding} with respect to the table, added to `dTable`: [V, D]. dy: [R, D]; ids: u32 [2, R] of
 * {@link packIds}.
 */
export function embeddingBackwardWeight(dTable: Tensor, dy: Tensor, ids: Tensor): void {
  const rows = rowsOf(dy), width = widthOf(dy);
  expectShape("embeddingBackwardWeight", "ids", ids, [2, rows], "u32");
  expectShape("embeddingBackwardWeight", "dTable", dTable, [rowsOf(dTable), width]);
  const { kernel, perLane, grid } = backwardWeight(dy.device, rows, width);
  dy.device.dispatch(kernel, [rows, width / perLane], [dTable, ids, dy], grid);
}
