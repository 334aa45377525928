/**
 * Where results go: a file that is written whole or not at all, or standard output for `-`.
 *
 * @module
 */

import {
  accessSync,
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { UserError } from "./errors.ts";
import { fileProblem, makeFolderWhole, temporaryName, writeFileWhole } from "./files.ts";
import { expectValue, string } from "./rules.ts";

/** The file behind a path: what a link points to, so that the link survives the write. */
function resolve(path: string): { target: string; special: boolean } {
  expectValue("A path", path, string);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory()) throw new UserError(`Cannot write ${path}: it is a directory; give the name of a file`);
  // A device or a pipe must be written through: a rename would replace it by a plain file.
  return { target: stat ? realpathSync(path) : path, special: stat !== undefined && !stat.isFile() };
}

function explain(path: string, error: unknown): never {
  if (error instanceof UserError) throw error;
  const { code } = error as { code?: string };
  const problem = code === "ENOENT"
    ? `there is no directory ${dirname(path)}`
    : code === "ENOTDIR"
    ? `${dirname(path)} is not a directory`
    : fileProblem(error);
  throw new UserError(`Cannot write ${path}: ${problem}`);
}

/**
 * Checks before long work starts that what it makes can be written: every path names a file in a directory that takes
 * one, no two are the same, and at most one is standard output.
 *
 * @param paths By flag, as in `{ "--json": "out.json" }`; absent ones are skipped.
 * @throws {UserError} Names the path and what is wrong with it.
 */
export function checkOutputs(paths: Record<string, string | undefined>): void {
  const flags = new Map<string, string>();
  for (const [flag, path] of Object.entries(paths)) {
    if (path === undefined) continue;
    if (path === "") throw new UserError(`${flag} needs the name of a file, or - for standard output`);
    const other = flags.get(path);
    if (other) throw new UserError(`${other} and ${flag} both write to ${path}; give them different files`);
    flags.set(path, flag);
    if (path === "-") continue;
    try {
      const { target, special } = resolve(path);
      if (special) accessSync(target, constants.W_OK);
      else {
        const name = temporaryName(target);
        closeSync(openSync(name, "w"));
        rmSync(name);
      }
    } catch (error) {
      explain(path, error);
    }
  }
}

/**
 * Checks before long work starts that a folder can be made: what is there already must be an empty one.
 *
 * @throws {UserError} Names the flag, the path, and what is wrong with it.
 */
export function checkOutputFolder(flag: string, path: string): void {
  if (path === "" || path === "-") throw new UserError(`${flag} needs the name of a folder`);
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat && !stat.isDirectory()) throw new UserError(`Cannot write ${path}: it is a file; ${flag} makes a folder`);
    if (stat && readdirSync(path).length > 0) throw new UserError(occupied(path));
    const name = temporaryName(path);
    mkdirSync(name);
    rmdirSync(name);
  } catch (error) {
    explain(path, error);
  }
}

const occupied = (path: string) => `Cannot write ${path}: there is something in it; give the name of a new folder`;

/**
 * Makes a folder of what `fill` writes into the one that it is given, whole or not at all.
 *
 * @throws {UserError} When it cannot be made, or there is one with something in it.
 */
export async function writeFolder(path: string, fill: (folder: string) => Promise<void>): Promise<void> {
  try {
    const refuse = () => Promise.reject(new UserError(occupied(path)));
    await makeFolderWhole(path, fill, refuse, 0o777);
  } catch (error) {
    if (error instanceof UserError || (error as { code?: string }).code) explain(path, error);
    throw error;
  }
}

/**
 * Writes a text, or bytes piece by piece, under a temporary name and renames it, so that no reader sees half of it; `-` is
 * standard output.
 *
 * @throws {UserError} When the file cannot be written; nothing is left behind then.
 */
export function writeOutput(path: string, content: string | Iterable<Uint8Array>): void {
  const pieces = typeof content === "string" ? [new TextEncoder().encode(content)] : content;
  if (path === "-") return writeWhole(1, pieces);
  try {
    const { target, special } = resolve(path);
    if (!special) return writeFileWhole(target, (file) => writeWhole(file, pieces));
    const file = openSync(target, "w");
    try {
      writeWhole(file, pieces);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    explain(path, error);
  }
}

/** Writes until everything is out: a pipe may take less than it is given, or nothing for the moment. */
function writeWhole(file: number, pieces: Iterable<Uint8Array>): void {
  for (const bytes of pieces) {
    for (let at = 0; at < bytes.length;) {
      try {
        at += writeSync(file, bytes, at, Math.min(bytes.length - at, 2 ** 30)); // the system takes 2 GB at once at most
      } catch (error) {
        if ((error as { code?: string }).code !== "EAGAIN") throw error;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
      }
    }
  }
}
