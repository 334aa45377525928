/** Files that are read in parts, or whole where they are small. */
import { closeSync, fstatSync, openSync, readSync, type Stats, statSync } from "node:fs";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import { expectValue, string } from "../rules.ts";
import { parseJson } from "./json.ts";

/** The largest header that the safetensors format allows, and the largest file of JSON that is read here. */
export const largestJson = 100_000_000;

/**
 * What there is at a path, links followed; nothing where there is nothing.
 *
 * @throws {UserError} When that cannot be found out: a link leads around in a circle, a folder is closed.
 */
export function statOf(path: string): Stats | undefined {
  expectValue("A path", path, string);
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw cannotRead(path, error);
  }
}

function cannotRead(path: string, error: unknown): UserError {
  return new UserError(`Cannot read ${path}: ${fileProblem(error)}`);
}

/**
 * Opens a file for reading.
 *
 * @throws {UserError} When it is not there, or not a file: a pipe would be waited for.
 */
export function openFile(path: string): number {
  const stat = statOf(path);
  if (!stat) throw new UserError(`There is no file ${path}`);
  if (!stat.isFile()) throw cannotRead(path, new Error("it is not a file"));
  try {
    return openSync(path, "r");
  } catch (error) {
    throw cannotRead(path, error);
  }
}

/** The bytes from `start` to `end`, fewer where the file ends before. */
export function readRange(file: number, start: number, end: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(end - start);
  let at = 0;
  while (at < bytes.length) {
    const count = readSync(file, bytes, at, Math.min(bytes.length - at, 2 ** 30), start + at);
    if (count === 0) break;
    at += count;
  }
  return bytes.subarray(0, at);
}

/**
 * What a file of JSON holds.
 *
 * @throws {UserError} When it is not there, too large, or not JSON: `what` it is stands in the message.
 */
export function readJson(path: string, what: string): unknown {
  const file = openFile(path);
  try {
    const { size } = fstatSync(file);
    if (size > largestJson) throw new Error(`has ${size} bytes, more than the ${largestJson} that are read`);
    return parseJson(readRange(file, 0, size));
  } catch (error) {
    throw new UserError(`${path}: ${what} ${(error as Error).message}`);
  } finally {
    closeSync(file);
  }
}
