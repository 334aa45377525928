/** Safetensors files (https://huggingface.co/docs/safetensors): an index in JSON, then the tensors' bytes one after the other. */
import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import { UserError } from "../errors.ts";
import { writeOutput } from "../report/output.ts";
import { sizeOf } from "../tensor.ts";
import { readable, toFloat32 } from "./dtypes.ts";
import { headerLength, parseHeader, prefix, type TensorEntry } from "./header.ts";
import { quoted } from "../text.ts";

/** Named tensors in one file or several; holds them open until {@link TensorFile.close}. */
export interface TensorFile {
  /** What there is, by name. */
  readonly tensors: ReadonlyMap<string, { readonly dtype: string; readonly shape: readonly number[] }>;
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
  let tensors: Map<string, TensorEntry>;
  try {
    tensors = readIndex(file);
  } catch (error) {
    closeSync(file);
    throw new UserError(`${path}: ${(error as Error).message}`);
  }
  return {
    tensors,
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

/**
 * Opens a file for reading.
 *
 * @throws {UserError} When it is not there, or not a file: a pipe would be waited for.
 */
export function openFile(path: string): number {
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat) throw new UserError(`There is no file ${path}`);
    if (!stat.isFile()) throw new UserError(`Cannot read ${path}: it is not a file`);
    return openSync(path, "r");
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`Cannot read ${path}: ${(error as Error).message}`);
  }
}

function readIndex(file: number): Map<string, TensorEntry> {
  const { size } = fstatSync(file);
  const length = headerLength(readRange(file, 0, prefix), size);
  return parseHeader(readRange(file, prefix, prefix + length), size);
}

/** The bytes from `start` to `end`, fewer where the file ends before. */
function readRange(file: number, start: number, end: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(end - start);
  let at = 0;
  while (at < bytes.length) {
    const count = readSync(file, bytes, at, Math.min(bytes.length - at, 2 ** 30), start + at);
    if (count === 0) break;
    at += count;
  }
  return bytes.subarray(0, at);
}

/** A tensor to be written, as F32. */
export interface NamedTensor {
  /** Unique in its file. */
  readonly name: string;
  /** Axes, outermost first; none for a scalar. */
  readonly shape: readonly number[];
  /** Makes its elements when they are to be written, so that a reordered copy of the whole model never exists. */
  values(): Float32Array;
}

/**
 * Writes tensors to one file, under a temporary name until it is complete.
 *
 * @throws {UserError} When it cannot be written; what was at `path` before is still there then.
 */
export function writeTensorFile(path: string, tensors: readonly NamedTensor[]): void {
  const entries: [string, unknown][] = [["__metadata__", { format: "pt" }]]; // transformers refuses files without it
  let offset = 0;
  for (const { name, shape } of tensors) {
    const end = offset + sizeOf(shape) * 4;
    entries.push([name, { dtype: "F32", shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  // Spaces up to a multiple of 8, so that the tensors are aligned in the file too.
  const header = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(0x20);
  header.set(text);
  writeOutput(
    path,
    function* () {
      yield new Uint8Array(BigUint64Array.of(BigInt(header.length)).buffer);
      yield header;
      for (const { name, shape, values } of tensors) {
        const array = values();
        if (array.length !== sizeOf(shape)) {
          throw new Error(`tensor ${quoted(name)} has ${array.length} elements, its shape is [${shape}]`);
        }
        yield new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      }
    }(),
  );
}
