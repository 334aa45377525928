/** What is asked of the arrays of a batch, in one pass over each. */
import { UserError } from "../errors.ts";
import { described } from "../rules.ts";
import { sizeOf } from "../tensor.ts";
import type { BatchArray } from "./data.ts";

/** Refuses an array of another type. */
export function expectType(what: string, array: unknown, type: "u32"): asserts array is Uint32Array;
export function expectType(what: string, array: unknown, type: "f32"): asserts array is Float32Array;
export function expectType(what: string, array: unknown, type: "u32" | "f32"): asserts array is BatchArray;
export function expectType(what: string, array: unknown, type: "u32" | "f32"): void {
  const right = type === "u32" ? Uint32Array : Float32Array;
  if (!(array instanceof right)) throw new UserError(`${what} must be a ${right.name}, not ${described(array)}`);
}

/** Refuses an array of another length; `why` says whence the right one. */
export function expectLength(what: string, { length }: { length: number }, right: number, why: string): void {
  if (length !== right) throw new UserError(`The batch has ${length} ${what}; ${why} need ${right}`);
}

/** Refuses a number that is NaN or infinite; `refusal` says where it is and what would be right. */
export function expectFinite(values: Float32Array, refusal: (index: number) => string): void {
  // NaN and the infinities are those with all bits of the exponent set; of words this takes half the time it takes of floats.
  const words = new Int32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < words.length; i++) {
    if ((words[i] & 0x7f80_0000) === 0x7f80_0000) throw new UserError(refusal(i));
  }
}

/** "Input [3, 17] of sample 5" for an element of what every sample has with these axes: its place along each. */
export function place(what: string, index: number, axes: readonly number[]): string {
  const of = sizeOf(axes);
  let rest = index % of;
  const at = axes.toReversed().map((length) => {
    const along = rest % length;
    rest = (rest - along) / length;
    return along;
  }).reverse();
  const where = at.length === 0 ? "" : at.length === 1 ? ` ${at[0]}` : ` [${at.join(", ")}]`;
  return `${what}${where} of sample ${Math.floor(index / of)}`;
}
