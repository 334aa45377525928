/** The core of self-attention: scores, softmax, weighted sum. It has no parameters: p1 only. */
import { UserError } from "../errors.ts";
import type { Gpu, GpuInfo } from "../gpu/gpu.ts";
import { type DType, empty, release, type Tensor, writeArray } from "../tensor.ts";
import { composed } from "./attention_composed.ts";
import { fusedSubgroup, fusedWorkgroup } from "./attention_fused.ts";
import { type AttentionMasks, type AttentionShape, type AttentionWay, type Kept, qkvWidth } from "./attention_shape.ts";
import { defineOperation, roughly } from "./choice.ts";
import { expectShape } from "./shapes.ts";
import { usual } from "./usual.ts";

export { type AttentionMasks, type AttentionShape, type AttentionWay, type Kept, qkvWidth };

/** Every way to compute attention, the plain reference first. */
export const attentionWays: readonly AttentionWay[] = [composed, fusedSubgroup, fusedWorkgroup];

/** The fused way for a kind of device: its name. Not every shape has one there. */
export function fusedAttention({ kind }: Pick<GpuInfo, "kind">): string {
  return usual[kind].fusedAttention;
}

/** The way that keeps the probabilities: its name. */
export const storedAttention: string = composed.name;

/** What the choice depends on, known before any tensor but qkv is. */
interface Situation {
  readonly shape: AttentionShape;
  /** Of qkv. */
  readonly dtype: DType;
  readonly masks: AttentionMasks;
}

/** Forward and backward together. */
interface Problem extends Situation {
  readonly out: Tensor;
  readonly dqkv: Tensor;
  readonly qkv: Tensor;
  readonly dout: Tensor;
}

/**
 * Forward and backward, one operation: what one keeps, the other reads, so they take the same way, the one that is fastest
 * for both. A layer records them apart; what is measured is one after the other.
 */
const operation = defineOperation<Problem>({
  name: "attention",
  candidates: attentionWays.map((way) => ({
    name: way.name,
    // The fused kernels have no way yet to leave out what stands before a document.
    supports: (info, { shape, masks }) => way.supports(info, shape) && (!masks.starts || way === composed),
    hopeless: (info) => info.software && way === fusedWorkgroup,
    record({ out, dqkv, qkv, dout, shape, masks }) {
      const needed = way.keeps(shape, qkv.dtype);
      const kept = empty(out.device, needed.shape, "workspace", needed.dtype);
      way.forward(out, kept, qkv, shape, masks);
      way.backward(dqkv, dout, out, qkv, kept, shape, masks);
      release(kept); // reused at the earliest by a kernel recorded after these
    },
  })),
  classOf({ shape, dtype, masks }) {
    const { sequences, length, heads, kvHeads = heads, headSize, causal = true } = shape;
    const left = [
      ...causal ? ["causal"] : [],
      ...masks.lengths ? ["padded"] : [],
      ...masks.starts ? ["documents"] : [],
      ...masks.dropout ? ["dropout"] : [],
    ];
    return [`${roughly(sequences * heads, length)}x${headSize}`, roughly(heads / kvHeads), dtype, ...left].join(" ");
  },
  rule: ({ kind }, { shape }) => usual[kind].attention({ ...shape, causal: shape.causal ?? true }),
  outputs: ({ out, dqkv }) => [out, dqkv],
  // Two products of the whole square forward, and twice as many backward.
  flops: ({ shape: { sequences, length, heads, headSize } }) => 12 * sequences * heads * length * length * headSize,
  prepare({ shape: { sequences, length }, masks: { lengths, starts } }) {
    if (lengths) writeArray(lengths, new Uint32Array(sequences).fill(length));
    if (starts) writeArray(starts, new Uint32Array(sequences * length));
  },
});

/**
 * The way that forward and backward of these sizes take on a device. It follows from what dry devices know, too, so that
 * they predict what is kept; `setChoices` tells them what calibration has chosen.
 */
export function chooseAttention(gpu: Gpu, shape: AttentionShape, dtype: DType, masks: AttentionMasks): AttentionWay {
  const situation: Situation = { shape, dtype, masks };
  const { name } = operation.choose(gpu, situation as Problem); // which looks at no tensor
  return attentionWays.find((way) => way.name === name)!;
}

/**
 * `out = softmax(q k^T / sqrt(headSize)) v` for each head (Vaswani et al., 2017, section 3.2.1; heads that share keys and
 * values: Ainslie et al., "GQA", 2023). With R = sequences * length: out [R, heads * headSize]; qkv
 * [R, {@link qkvWidth}], each row the query heads, the key heads, the value heads; kept: what the backward needs besides
 * `out`, as the way that {@link chooseAttention} takes keeps it.
 */
export function attention(
  out: Tensor,
  kept: Tensor,
  qkv: Tensor,
  shape: AttentionShape,
  masks: AttentionMasks = {},
): void {
  check("attention", shape, { out, qkv }, masks);
  const way = chosen("attention", shape, qkv, kept, masks);
  way.forward(out, kept, qkv, shape, masks);
}

/**
 * The gradient of {@link attention} with respect to qkv. dqkv, qkv: [R, {@link qkvWidth}]; dout, out:
 * [R, heads * headSize]; out and kept as the forward left them, and so they stay; the masks of the forward.
 */
export function attentionBackward(
  dqkv: Tensor,
  dout: Tensor,
  out: Tensor,
  qkv: Tensor,
  kept: Tensor,
  shape: AttentionShape,
  masks: AttentionMasks = {},
): void {
  check("attentionBackward", shape, { dout, out, qkv, dqkv }, masks);
  const way = chosen("attentionBackward", shape, qkv, kept, masks);
  way.backward(dqkv, dout, out, qkv, kept, shape, masks);
  operation.observe({ out, dqkv, qkv, dout, shape, dtype: qkv.dtype, masks });
}

function chosen(name: string, shape: AttentionShape, qkv: Tensor, kept: Tensor, masks: AttentionMasks): AttentionWay {
  const way = chooseAttention(qkv.device.gpu, shape, qkv.dtype, masks);
  const needed = way.keeps(shape, qkv.dtype);
  expectShape(name, needed.name, kept, needed.shape, needed.dtype);
  return way;
}

function check(operation: string, shape: AttentionShape, tensors: Record<string, Tensor>, masks: AttentionMasks) {
  const { sequences, length, heads, kvHeads = heads, headSize } = shape;
  if (heads % kvHeads !== 0) {
    throw new UserError(`${operation}: ${heads} query heads cannot share ${kvHeads} key heads evenly`);
  }
  const rows = sequences * length;
  for (const [name, tensor] of Object.entries(tensors)) {
    const width = name.endsWith("qkv") ? qkvWidth(shape) : heads * headSize;
    expectShape(operation, name, tensor, [rows, width], "float");
  }
  if (masks.lengths) expectShape(operation, "lengths", masks.lengths, [sequences], "u32");
  if (!masks.starts) return;
  expectShape(operation, "starts", masks.starts, [sequences * length], "u32");
  if (shape.causal === false || masks.lengths) {
    throw new UserError(`${operation}: only causal attention without lengths can keep documents apart`);
  }
}
