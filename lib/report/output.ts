/**
 * Where results go: a file that is written whole or not at all, or standard output for `-`.
 *
 * @module
 */

import {
  accessSync,
  closeSync,
  constants,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { UserError } from "../errors.ts";

/** The file behind a path: what a link points to, so that the link survives the write. */
function resolve(path: string): { target: string; special: boolean } {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory()) throw new UserError(`Cannot write ${path}: it is a directory; give the name of a file`);
  // A device or a pipe must be written through: a rename would replace it by a plain file.
  return { target: stat ? realpathSync(path) : path, special: stat !== undefined && !stat.isFile() };
}

const temporary = (target: string) => join(dirname(target), `.${basename(target)}.${process.pid}.tmp`);

function explain(path: string, error: unknown): never {
  if (error instanceof UserError) throw error;
  const reasons: Record<string, string> = {
    ENOENT: `there is no directory ${dirname(path)}`,
    ENOTDIR: `${dirname(path)} is not a directory`,
    EACCES: "permission denied",
    EPERM: "permission denied",
    EROFS: "the file system is read-only",
    ENOSPC: "the disk is full",
  };
  const code = (error as { code?: string }).code ?? "";
  throw new UserError(`Cannot write ${path}: ${reasons[code] ?? (error as Error).message}`);
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
        closeSync(openSync(temporary(target), "w"));
        rmSync(temporary(target));
      }
    } catch (error) {
      explain(path, error);
    }
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
    const name = special ? target : temporary(target);
    try {
      const file = openSync(name, "w");
      try {
        writeWhole(file, pieces);
      } finally {
        closeSync(file);
      }
      if (!special) renameSync(name, target);
    } catch (error) {
      if (!special) rmSync(name, { force: true });
      throw error;
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
