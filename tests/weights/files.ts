/** Safetensors files for tests, written and read without the library: any header, any bytes behind it. */

/** A file: the length of its header, or a wrong one, the header, the rest. */
export function fileOf(header: unknown, body: Uint8Array | number[] = [], length?: number | bigint): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + body.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(length ?? text.length), true);
  file.set(text, 8);
  file.set(body, 8 + text.length);
  return file;
}

/** What a file says that its tensors are, bit by bit; only for files that are good. */
export function valuesOf(file: Uint8Array): Map<string, number[]> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const start = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, start)));
  const values = new Map<string, number[]>();
  for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries<Record<string, number[]>>(header)) {
    if (name === "__metadata__" || !Object.hasOwn(readers, String(dtype))) continue;
    const { bytes, read } = readers[String(dtype) as unknown as keyof typeof readers];
    values.set(
      name,
      Array.from({ length: (to - from) / bytes }, (_, i) => read(view, start + from + i * bytes)),
    );
  }
  return values;
}

const readers = {
  F32: { bytes: 4, read: (view: DataView, at: number) => view.getFloat32(at, true) },
  F16: { bytes: 2, read: (view: DataView, at: number) => half(view.getUint16(at, true)) },
  BF16: { bytes: 2, read: (view: DataView, at: number) => upper(view.getUint16(at, true)) },
};

/** IEEE 754 binary16. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}

/** The upper half of an f32. */
function upper(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint16(0, bits);
  return view.getFloat32(0);
}
