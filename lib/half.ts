/** 16-bit floats on the host (IEEE 754 binary16), for runtimes without Float16Array. */

/** The values behind the bits. */
export function fromHalf(bits: Uint16Array): Float32Array<ArrayBuffer> {
  values ??= Float32Array.from({ length: 2 ** 16 }, (_, each) => halfToNumber(each));
  return Float32Array.from(bits, (each) => values![each]);
}

/** The bits of the nearest 16-bit floats, ties to even; what is too large becomes infinite. */
export function toHalf(numbers: Float32Array): Uint16Array<ArrayBuffer> {
  return Uint16Array.from(numbers, numberToHalf);
}

/** All 65,536 values: a look-up is faster than the arithmetic, and a checkpoint has billions of numbers. */
let values: Float32Array | undefined;

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  if (exponent === 0) return sign * fraction * 2 ** -14;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction) * 2 ** (exponent - 15);
}

function numberToHalf(number: number): number {
  if (Number.isNaN(number)) return 0x7e00;
  const sign = number < 0 || Object.is(number, -0) ? 0x8000 : 0;
  const size = Math.abs(number);
  if (size >= 65_520) return sign | 0x7c00; // half way from the largest, 65,504, to the next power of two
  // Subnormals are multiples of 2^-24; from 2^-14 on, a power of two has 1,024 steps.
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  const steps = roundToEven(size / 2 ** (exponent - 10));
  return sign | (exponent === -14 ? steps : (exponent + 14) * 1024 + steps); // a carry runs into the exponent as it should
}

function roundToEven(number: number): number {
  const down = Math.floor(number), rest = number - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down;
}
