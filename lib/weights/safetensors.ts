/** Safetensors files (https://huggingface.co/docs/safetensors): an index in JSON, then the tensors' bytes one after the other. */
import { closeSync, fstatSync } from "node:fs";
import { UserError } from "../errors.ts";
import { toHalf } from "../half.ts";
import { writeOutput } from "../output.ts";
import { sizeOf } from "../tensor.ts";
import { quoted } from "../text.ts";
import { bitsOf, readable, toFloat32 } from "./dtypes.ts";
import { openFile, readRange } from "./files.ts";
import { type Header, headerLength, parseHeader, prefix } from "./header.ts";

/** Named tensors in one file or several; holds them open until {@link TensorFile.close}. */
export interface TensorFile {
  /** What there is, by name. */
  readonly tensors: ReadonlyMap<string, { readonly dtype: string; readonly shape: readonly number[] }>;
  /** What whoever wrote it says of it, by name; of several files, nothing. */
  readonly metadata: ReadonlyMap<string, string>;
  /**
   * The elements of one tensor, read from its place in the file. F16 and BF16 become f32.
   *
   * @throws {UserError} When its type is another one, or the file no longer has its bytes.
   */
  read(name: string): Float32Array<ArrayBuffer>;
  /** Closes the files. */
  close(): void;
}

/**
 * Opens one file and reads its index; the tensors stay where they are.
 *
 * @throws {UserError} When there is no such file or it is not as the format wants it: one line with the file and the tensor.
 */
export function openTensorFile(path: string): TensorFile {
  const file = openFile(path);
  let header: Header;
  try {
    header = readHeader(file);
  } catch (error) {
    closeSync(file);
    throw new UserError(`${path}: ${(error as Error).message}`);
  }
  const { tensors, metadata } = header;
  return {
    tensors,
    metadata,
    read(name) {
      const entry = tensors.get(name);
      if (!entry) throw new UserError(`${path}: there is no tensor ${quoted(name)}`);
      checkReadable(path, name, entry.dtype);
      const bytes = readRange(file, entry.start, entry.end);
      if (bytes.length < entry.end - entry.start) {
        throw new UserError(`${path}: cut off while it was read, tensor ${quoted(name)} is incomplete`);
      }
      return toFloat32(entry.dtype, bytes);
    },
    close: () => closeSync(file),
  };
}

/**
 * Throws unless {@link TensorFile.read} can convert the type.
 *
 * @throws {UserError} Names file, tensor and type.
 */
export function checkReadable(path: string, name: string, dtype: string): void {
  if (readable.includes(dtype)) return;
  throw new UserError(`${path}: tensor ${quoted(name)} is ${dtype}; what can be read is ${readable.join(", ")}`);
}

function readHeader(file: number): Header {
  const { size } = fstatSync(file);
  const length = headerLength(readRange(file, 0, prefix), size);
  return parseHeader(readRange(file, prefix, prefix + length), size);
}

/** A tensor to be written. */
export interface NamedTensor {
  /** Unique in its file. */
  readonly name: string;
  /** Axes, outermost first; none for a scalar. */
  readonly shape: readonly number[];
  /** How its elements are stored, F32 by default; F16 is for values that f16 holds as they are. */
  readonly dtype?: "F32" | "F16";
  /** Makes its elements when they are to be written, so that a reordered copy of the whole model never exists. */
  values(): Float32Array;
}

/**
 * Writes tensors to one file, under a temporary name until it is complete; `metadata` are texts that go with them.
 *
 * @throws {UserError} When it cannot be written; what was at `path` before is still there then.
 */
export function writeTensorFile(
  path: string,
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>> = {},
): void {
  writeOutput(path, tensorFileBytes(tensors, metadata));
}

/** The bytes of a file of tensors, piece by piece, each made when it is asked for. */
export function* tensorFileBytes(
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>> = {},
): Generator<Uint8Array<ArrayBuffer>> {
  // transformers refuses files that do not name a format
  const entries: [string, unknown][] = [["__metadata__", { format: "pt", ...metadata }]];
  // F32 first: behind an odd number of F16 it would not be aligned.
  const ordered = ["F32", "F16"].flatMap((type) => tensors.filter(({ dtype = "F32" }) => dtype === type));
  let offset = 0;
  for (const { name, shape, dtype = "F32" } of ordered) {
    const end = offset + sizeOf(shape) * bitsOf[dtype] / 8;
    entries.push([name, { dtype, shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  // Spaces up to a multiple of 8, so that the tensors are aligned in the file too.
  const header = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(0x20);
  header.set(text);
  yield new Uint8Array(BigUint64Array.of(BigInt(header.length)).buffer);
  yield header;
  for (const { name, shape, dtype, values } of ordered) {
    const array = values();
    if (array.length !== sizeOf(shape)) {
      throw new Error(`tensor ${quoted(name)} has ${array.length} elements, its shape is [${shape}]`);
    }
    const { buffer, byteOffset, byteLength } = dtype === "F16" ? toHalf(array) : array;
    yield new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
  }
}
