/** Attention of a sequence that comes piece by piece: keys and values are kept, and a new token looks at all before it. */
import { UserError } from "../errors.ts";
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor, writeArray } from "../tensor.ts";
import { type AttentionShape, qkvWidth } from "./attention_shape.ts";
import { strides } from "./elementwise.ts";
import { expectShape, rowsOf } from "./shapes.ts";
import { singleOperation, spread } from "./variants.ts";

/** Sizes of what is kept and read. */
export type CachedShape = Pick<AttentionShape, "heads" | "kvHeads" | "headSize">;

const attend = kernel("cached_attention", "attend"), append = kernel("cached_attention", "append");

/** The most features of a head that the kernel has room for. */
const largestHead = 256;

/** Elements of a row that is kept: key heads, value heads. */
export function keptWidth({ heads, kvHeads = heads, headSize }: CachedShape): number {
  return 2 * kvHeads * headSize;
}

/**
 * Puts the keys and values of new tokens behind those of the `before` tokens before them. kept: [capacity, {@link keptWidth}]; qkv:
 * [R, qkvWidth], each row the query heads, the key heads, the value heads; before: u32 [1], with R no more than the capacity. It is
 * read on the device, so what would be beyond the capacity is the caller's to refuse.
 */
export function appendKeys(kept: Tensor, qkv: Tensor, before: Tensor, shape: CachedShape): void {
  check("appendKeys", shape, qkv, kept, before);
  appendOperation.run([kept, qkv, before, shape]);
}

/**
 * The attention of new tokens, `softmax(q k^T / sqrt(headSize)) v` for each head, over the keys and values of the `before` tokens before
 * them and their own up to each, which {@link appendKeys} has put there. out: [R, heads * headSize]; the others as there. No backward.
 *
 * @throws {UserError} When a head has more than 256 features.
 */
export function cachedAttention(out: Tensor, qkv: Tensor, kept: Tensor, before: Tensor, shape: CachedShape): void {
  const { heads, headSize } = shape;
  check("cachedAttention", shape, qkv, kept, before);
  expectShape("cachedAttention", "out", out, [rowsOf(qkv), heads * headSize], "float");
  if (headSize > largestHead) {
    throw new UserError(`cachedAttention: a head has ${largestHead} features at most, not ${headSize}`);
  }
  attendOperation.run([out, qkv, kept, before, shape]);
}

function check(operation: string, shape: CachedShape, qkv: Tensor, kept: Tensor, before: Tensor): void {
  const { heads, kvHeads = heads } = shape;
  if (heads % kvHeads !== 0) {
    throw new UserError(`${operation}: ${heads} query heads cannot share ${kvHeads} key heads evenly`);
  }
  expectShape(operation, "qkv", qkv, [rowsOf(qkv), qkvWidth(shape)], "float");
  expectShape(operation, "kept", kept, [rowsOf(kept), keptWidth(shape)], "float");
  expectShape(operation, "before", before, [1], "u32");
  if (rowsOf(qkv) > rowsOf(kept)) {
    throw new UserError(`${operation}: ${rowsOf(qkv)} tokens are more than the ${rowsOf(kept)} that can be kept`);
  }
}

function parametersOf(qkv: Tensor, shape: CachedShape) {
  const { heads, kvHeads = heads, headSize: size } = shape;
  const [stride, width] = [qkvWidth(shape), keptWidth(shape)];
  return { rows: rowsOf(qkv), heads, members: heads / kvHeads, size, stride, width, scale: 1 / Math.sqrt(size) };
}

const appendOperation = singleOperation<[kept: Tensor, qkv: Tensor, before: Tensor, shape: CachedShape]>({
  name: "appendKeys",
  kernel: "cached_attention:append",
  outputs: 1,
  bytes: ([kept, qkv, , shape]) => 2 * rowsOf(qkv) * keptWidth(shape) * kept.bytes / sizeOf(kept.shape),
  record(kept, qkv, before, shape) {
    const count = rowsOf(qkv) * keptWidth(shape);
    qkv.device.dispatch(append, parametersOf(qkv, shape), [kept, qkv, before], strides(qkv.device, count));
  },
  prepare: ([, , before]) => writeArray(before, Uint32Array.of(0)),
});

const attendOperation = singleOperation<
  [out: Tensor, qkv: Tensor, kept: Tensor, before: Tensor, shape: CachedShape]
>({
  name: "cachedAttention",
  kernel: "cached_attention:attend",
  outputs: 1,
  record(out, qkv, kept, before, shape) {
    const parameters = parametersOf(qkv, shape);
    const grid = spread(parameters.rows * parameters.heads);
    qkv.device.dispatch(attend, parameters, [out, qkv, kept, before], grid);
  },
  prepare: ([, qkv, kept, before]) => writeArray(before, Uint32Array.of(rowsOf(kept) - rowsOf(qkv))),
});
