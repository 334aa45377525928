/** The core of self-attention: scores, softmax, weighted sum. It has no parameters: p1 only. */
import type { GpuInfo } from "../gpu/gpu.ts";
import type { Tensor } from "../tensor.ts";
import { composed } from "./attention_composed.ts";
import { fusedSubgroup, fusedWorkgroup } from "./attention_fused.ts";
import {
  type AttentionCandidate,
  type AttentionMasks,
  type AttentionShape,
  type Kept,
  qkvWidth,
} from "./attention_shape.ts";
import { expectShape } from "./shapes.ts";

export { type AttentionCandidate, type AttentionMasks, type AttentionShape, type Kept, qkvWidth };

/** Every way to compute attention, the plain reference first. */
export const attentionCandidates: readonly AttentionCandidate[] = [composed, fusedSubgroup, fusedWorkgroup];

let forced: AttentionCandidate | undefined;

/** Records with one way wherever it can serve, whatever the device would choose: for tests and benchmarks. */
export function withAttention(candidate: AttentionCandidate, record: () => void): void {
  const before = forced;
  forced = candidate;
  try {
    record();
  } finally {
    forced = before;
  }
}

/**
 * The way for this device and shape; forward and backward take the same. It follows from what dry devices know, too, so that
 * they predict what is kept. A processor is given the fused way where both passes together take no longer: the backward computes
 * the scores twice, which pays where a causal mask lets it skip tiles. The figures stand at the head of attention_subgroup.wgsl.
 */
export function chooseAttention(info: GpuInfo, shape: AttentionShape): AttentionCandidate {
  if (forced?.supports(info, shape)) return forced;
  if (!info.software) return fusedWorkgroup.supports(info, shape) ? fusedWorkgroup : composed;
  const { length, headSize, causal = true } = shape;
  const fast = causal && length >= (headSize <= 32 ? 128 : 256);
  return fast && fusedSubgroup.supports(info, shape) ? fusedSubgroup : composed;
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
  const way = chosen("attention", shape, qkv, kept);
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
  const way = chosen("attentionBackward", shape, qkv, kept);
  way.backward(dqkv, dout, out, qkv, kept, shape, masks);
}

function chosen(operation: string, shape: AttentionShape, qkv: Tensor, kept: Tensor): AttentionCandidate {
  const way = chooseAttention(qkv.device.gpu.info, shape);
  const needed = way.keeps(shape, qkv.dtype);
  expectShape(operation, needed.name, kept, needed.shape, needed.dtype);
  return way;
}

function check(operation: string, shape: AttentionShape, tensors: Record<string, Tensor>, masks: AttentionMasks) {
  const { sequences, length, heads, kvHeads = heads, headSize } = shape;
  if (heads % kvHeads !== 0) {
    throw new Error(`${operation}: ${heads} query heads cannot share ${kvHeads} key heads evenly`);
  }
  const rows = sequences * length;
  for (const [name, tensor] of Object.entries(tensors)) {
    const width = name.endsWith("qkv") ? qkvWidth(shape) : heads * headSize;
    expectShape(operation, name, tensor, [rows, width], "float");
  }
  if (masks.lengths) expectShape(operation, "lengths", masks.lengths, [sequences], "u32");
}
