/**
 * What each kind of device is given where nothing was measured on it: the one place that tells one driver from another. The
 * figures behind it stand in bench/README.md and at the head of each kernel.
 */
import type { DeviceKind } from "../gpu/kind.ts";

/** For each family of operations the names of candidates, the preferred first: the first that supports a problem is taken. */
export interface Usual {
  /** Of rows, see variants.ts. */
  readonly rows: readonly string[];
  /** Of products of matrices with so many rows. */
  matmul(rows: number): readonly string[];
  /** Of a convolution to so many channels and its gradients; a way that only some of them have is passed over by the others. */
  convolution(outputs: number): readonly string[];
  /** Of attention, forward and backward together. */
  attention(sizes: AttentionSizes): readonly string[];
  /** The way of attention that keeps no scores, whether or not it is the fastest. */
  readonly fusedAttention: string;
  /** Of selective scans. */
  readonly scan: readonly string[];
}

/** What the choice among ways of attention depends on. */
export interface AttentionSizes {
  readonly sequences: number;
  readonly length: number;
  readonly heads: number;
  readonly headSize: number;
  readonly causal: boolean;
}

/**
 * Workgroup memory, and neighbouring invocations on neighbouring elements. Large tiles and matrix units are for GPUs too: none has
 * timed them yet.
 */
const gpu: Usual = {
  rows: ["group"],
  matmul: () => ["matmul_workgroup:workgroupTile"],
  convolution: () => ["patches group"],
  attention: () => ["attention_workgroup"],
  fusedAttention: "attention_workgroup",
  scan: ["chunks"],
};

const [scalars, vectors] = ["matmul_registers:scalars", "matmul_registers:vectors"];
/** With broadcasts where there are subgroups. */
const inRegisters = ["matmul_subgroup:broadcast", "matmul_subgroup:broadcastScalars", vectors, scalars];

/**
 * A processor: registers, since a barrier is dear there. Small products have no rule: in tiles that are mostly empty, 128 x 128
 * by 4 takes 58 us (plain 139), by 1 111 us (plain 72); `calibrate()` finds them.
 */
const lavapipe: Usual = {
  rows: ["vec4", "plain"],
  matmul: () => inRegisters,
  convolution: () => ["conv_subgroup:convolve", "patches vec4", "patches plain"],
  // The fused way where both passes together take no longer: its backward computes the scores twice, which pays where a
  // causal mask lets it skip tiles.
  attention: ({ length, headSize, causal }) =>
    causal && length >= (headSize <= 32 ? 128 : 256) ? ["attention_subgroup"] : ["composed"],
  fusedAttention: "attention_subgroup",
  scan: ["subgroup"],
};

/** Bytes of scores that a layer may keep of a micro-batch: what every device can bind. */
const mostScores = 2 ** 27;

/**
 * Four lanes, dear loads and cheap swaps: products in quads, which make 32 x 32 tiles, are so much faster than what else there is
 * that convolutions and attention are made of them as well, unless most of a tile would be empty.
 */
const swiftshader: Usual = {
  ...lavapipe,
  matmul: (rows) => [...rows <= 4 ? [scalars] : rows <= 8 ? [vectors] : [], "matmul_quad:quads", ...inRegisters],
  convolution: (outputs) => [...outputs <= 16 ? ["conv_subgroup:convolve"] : [], "patches vec4", "patches plain"],
  attention({ sequences, heads, length, headSize, causal }) {
    const fits = 4 * sequences * heads * length ** 2 <= mostScores;
    return fits && !(causal && headSize <= 16 && length >= 128) ? ["composed"] : [lavapipe.fusedAttention];
  },
};

/** By kind of device. */
export const usual: Readonly<Record<DeviceKind, Usual>> = { gpu, lavapipe, swiftshader };
