/** Files that are larger than memory, read block by block. */
import { isUtf8 } from "node:buffer";
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import { shown } from "../text.ts";

/** A stretch of a file with whole documents in it, small enough to lie in memory. */
export interface Block {
  /** Bytes of text, about what it takes in memory. */
  readonly bytes: number;
  /** How many documents begin here, and end. */
  readonly documents: number;
  /** Tells what stands in it from anything else, where it has been looked through. */
  readonly digest?: string;
  /**
   * Reads it; what it returns gives each document by its number in here, and may be called in any order.
   *
   * @throws {UserError} When the file cannot be read any more, or has changed.
   */
  read(): Promise<(document: number) => string>;
}

/** A stretch of a file, with its bytes. */
export interface Stretch {
  /** Where it begins in the file. */
  readonly start: number;
  readonly bytes: Uint8Array;
  /** Tells its bytes from any others. */
  readonly digest: string;
  /**
   * Reads its bytes anew.
   *
   * @throws {UserError} When they cannot be read any more, or are others.
   */
  again(): Promise<Uint8Array>;
}

/** What is read at a time. */
export const blockBytes = 2 ** 20;

/** The most that a document may take in a block of its own. */
const mostBytes = 2 ** 26;

/**
 * Reads a file from its start to its end. `cut` says where a stretch that goes on behind its end can be cut, in bytes from its start, or
 * 0 where it cannot, which makes it longer.
 *
 * @param what What cannot be cut, in a message: "a line".
 * @throws {UserError} When the file cannot be read, is empty, or cannot be cut for 64 MiB.
 */
export async function* stretches(
  path: string,
  size: number,
  cut: (bytes: Uint8Array) => number,
  what: string,
): AsyncGenerator<Stretch> {
  const { length, read, close } = await reading(path);
  try {
    if (length === 0) throw new UserError(`${shown(path)} is empty`);
    for (let start = 0; start < length;) {
      let bytes: Uint8Array, end = 0;
      for (let most = size;; most *= 2) {
        bytes = await read(start, Math.min(most, length - start));
        end = start + bytes.length === length ? bytes.length : cut(bytes);
        if (end > 0) break;
        if (most >= mostBytes) {
          throw new UserError(
            `${shown(path)} has ${what} of more than ${mostBytes / 2 ** 20} MiB from byte ${start} on`,
          );
        }
      }
      yield stretchOf(path, start, bytes.subarray(0, end));
      start += end;
    }
  } finally {
    await close();
  }
}

/** Keeps the digest of its bytes, and not these. */
function stretchOf(path: string, start: number, bytes: Uint8Array): Stretch {
  const { length } = bytes, digest = digestOf(bytes);
  return {
    ...{ start, bytes, digest },
    again: async () => {
      const now = await readStretch(path, start, length);
      if (digestOf(now) !== digest) throw changed(path);
      return now;
    },
  };
}

const digestOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("base64");

/** A file is no longer what its documents were counted in: to go on would train on pieces of others. */
export const changed = (path: string): UserError =>
  new UserError(`${shown(path)} has changed while it was in use: leave it as it is for as long as it is read`);

/**
 * So many bytes of a file, from `start` on.
 *
 * @throws {UserError} When it cannot be read, or is shorter.
 */
export async function readStretch(path: string, start: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
  const { read, close } = await reading(path);
  try {
    return await read(start, length);
  } finally {
    await close();
  }
}

async function reading(path: string) {
  const refused = (error: unknown) => new UserError(`${shown(path)} cannot be read: ${fileProblem(error)}`);
  const file = await open(path).catch((error) => {
    throw refused(error);
  });
  const size = await file.stat().catch((error) => {
    throw refused(error);
  });
  return {
    length: size.size,
    close: () => file.close(),
    read: async (start: number, length: number) => {
      const bytes = new Uint8Array(length);
      for (let done = 0; done < length;) {
        const { bytesRead } = await file.read(bytes, done, length - done, start + done).catch((error) => {
          throw refused(error);
        });
        if (bytesRead === 0) throw new UserError(`${shown(path)} has become shorter while it was in use`);
        done += bytesRead;
      }
      return bytes;
    },
  };
}

/**
 * The text of bytes that begin at byte `start` of a file.
 *
 * @throws {UserError} When they are not UTF-8: at which byte.
 */
export function textOf(path: string, bytes: Uint8Array, start: number): string {
  expectUtf8(path, bytes, start);
  return (start === 0 ? fromStart : further).decode(bytes);
}

/** A mark of the byte order is no text where a file starts, and is one elsewhere. */
const fromStart = new TextDecoder(), further = new TextDecoder("utf-8", { ignoreBOM: true });

/** As {@link textOf}, for its error alone. */
export function expectUtf8(path: string, bytes: Uint8Array, start: number): void {
  if (isUtf8(bytes)) return;
  // The longest beginning that could go on as UTF-8.
  let good = 0, bad = bytes.length + 1;
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    const isWhole = middle === bytes.length;
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, middle), { stream: !isWhole });
      good = middle;
    } catch {
      bad = middle;
    }
  }
  throw new UserError(`${shown(path)} is not UTF-8: byte ${start + good} does not go on as UTF-8 does`);
}

/** The last place at or before `most` where a character of UTF-8 begins. */
export function characterStart(bytes: Uint8Array, most: number): number {
  let at = most;
  while (at > 0 && (bytes[at] & 0xc0) === 0x80) at--;
  return at;
}
