/** The header of a safetensors file, as strict as the format's own implementation reads it (`SafeTensors::deserialize`). */
import { quoted, shown } from "../text.ts";
import { bitsOf } from "./dtypes.ts";
import { largestJson } from "./files.ts";
import { isObject, parseJson } from "./json.ts";

/** Where a tensor lies in its file. */
export interface TensorEntry {
  /** The format's name, "F32" for example. */
  readonly dtype: string;
  /** Axes, outermost first; none for a scalar. */
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly start: number;
  /** Byte behind the last. */
  readonly end: number;
}

/** What a header says. */
export interface Header {
  /** Tensors by name. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Texts by name, from whoever wrote the file. */
  readonly metadata: ReadonlyMap<string, string>;
}

/** The most axes that a tensor may have; PyTorch takes 64. */
const mostAxes = 64;

/** Bytes in front of the header: its length as a u64. */
export const prefix = 8;

/**
 * The header's length out of a file's first {@link prefix} bytes.
 *
 * @throws {Error} When a file of `size` bytes cannot have such a header: it may be megabytes of anything, and is read no further.
 */
export function headerLength(bytes: Uint8Array<ArrayBuffer>, size: number): number {
  if (bytes.length < prefix) throw new Error(`not a safetensors file: it has ${size} bytes`);
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (length > largestJson) throw new Error(`not a safetensors file: its header would have ${length} bytes`);
  if (prefix + Number(length) > size) {
    throw new Error(`cut off: the header alone has ${length} bytes, the file ${size}`);
  }
  return Number(length);
}

/**
 * What a header says. Its tensors must fill the rest of the file without a gap.
 *
 * @param header The header's bytes.
 * @param size Bytes of the whole file.
 * @throws {Error} What is wrong, with the tensor named.
 */
export function parseHeader(header: Uint8Array, size: number): Header {
  let json: unknown;
  try {
    json = parseJson(header);
  } catch (error) {
    throw new Error(`not a safetensors file: its header ${(error as Error).message}`);
  }
  if (!isObject(json)) throw new Error("not a safetensors file: its header is not an object");
  const entries: [string, TensorEntry][] = [];
  let metadata = new Map<string, string>();
  for (const [name, value] of Object.entries(json)) {
    if (name !== "__metadata__") entries.push([name, entryOf(name, value, prefix + header.length)]);
    else if (isTexts(value)) metadata = new Map(Object.entries(value));
    else if (value !== null) throw new Error("not a safetensors file: its __metadata__ is not an object of texts");
  }
  checkCover(entries, prefix + header.length, size);
  return { tensors: new Map(entries), metadata };
}

function entryOf(name: string, value: unknown, base: number): TensorEntry {
  const tensor = `tensor ${quoted(name)}`;
  if (!isObject(value)) throw new Error(`${tensor} is not described by an object`);
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string" || !Object.hasOwn(bitsOf, dtype)) {
    throw new Error(`${tensor} has the unknown type ${quoted(String(JSON.stringify(dtype)))}`);
  }
  if (Array.isArray(shape) && shape.length > mostAxes) throw new Error(`${tensor} has ${shape.length} axes`);
  if (!isLengths(shape)) throw new Error(`${tensor} has no shape of whole numbers`);
  if (!isLengths(offsets) || offsets.length !== 2) throw new Error(`${tensor} has no pair of data_offsets`);
  const [start, end] = offsets;
  const bytes = shape.reduce((product, length) => product * length, bitsOf[dtype]) / 8;
  if (end - start !== bytes) {
    throw new Error(`${tensor} lies in ${end - start} bytes, ${dtype} ${shownShape(shape)} takes ${bytes}`);
  }
  return { dtype, shape, start: base + start, end: base + end };
}

/** Throws unless the tensors, in the order of their bytes, follow one another from `start` to `end`. */
function checkCover(entries: readonly [string, TensorEntry][], start: number, end: number): void {
  const ordered = entries.toSorted(([, a], [, b]) => a.start - b.start || a.end - b.end);
  let [last, at] = ["the header", start];
  for (const [name, entry] of ordered) {
    if (entry.start < at) throw new Error(`tensor ${quoted(name)} overlaps ${last} by ${at - entry.start} bytes`);
    if (entry.start > at) {
      throw new Error(`${entry.start - at} bytes belong to nothing between ${last} and tensor ${quoted(name)}`);
    }
    [last, at] = [`tensor ${quoted(name)}`, entry.end];
    if (at > end) throw new Error(`cut off: ${last} ends at byte ${at}, the file at ${end}`);
  }
  if (at < end) throw new Error(`too long: ${end - at} bytes follow ${last}`);
}

/** A shape for a message, cut where it is long. */
export function shownShape(shape: readonly number[]): string {
  return `[${shown(shape.join())}]`;
}

function isTexts(value: unknown): value is Record<string, string> {
  return isObject(value) && Object.values(value).every((text) => typeof text === "string");
}

function isLengths(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && (each > 0 || Object.is(each, 0)));
}
