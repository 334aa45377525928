/** Element types of safetensors files, and how those that hold weights become f32. */

import { fromHalf } from "../half.ts";

/** Bits of an element, by the format's names (its `Dtype`, safetensors 0.6). */
export const bitsOf: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

/** Types that {@link toFloat32} converts. */
export const readable: readonly string[] = ["F32", "F16", "BF16"];

/** The elements in `bytes`, little-endian as WebGPU's hosts are, as f32. F32 shares the memory of `bytes`. */
export function toFloat32(dtype: string, bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  if (dtype === "F32") return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  switch (dtype) {
    case "F16":
      return fromHalf(halves);
    case "BF16": // the upper half of an f32
      return new Float32Array(Uint32Array.from(halves, (bits) => bits << 16).buffer);
    default:
      throw new Error(`toFloat32 does not know ${dtype}`);
  }
}
