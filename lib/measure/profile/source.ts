/** Bytes of what a profile is read from: files, plain or gzip, and texts. */
import { Buffer } from "node:buffer";
import { createReadStream, type Stats, statSync } from "node:fs";
import { createGunzip } from "node:zlib";
import { UserError } from "../../errors.ts";
import { fileProblem } from "../../files.ts";
import { shown } from "../../text.ts";

/** The path of a file, or a text and what to call it. */
export type TraceSource = string | { readonly name: string; readonly text: string };

/** What a source is called in messages. */
export function nameOf(source: TraceSource): string {
  return shown(typeof source === "string" ? source : source.name);
}

/**
 * The bytes of a source, unpacked.
 *
 * @throws {UserError} For a file that is not there or cannot be read, and, on the way, for a damaged archive.
 */
export function openSource(source: TraceSource): AsyncIterable<Uint8Array> {
  if (typeof source !== "string") return textChunks(source.text);
  const name = nameOf(source);
  let stat: Stats | undefined;
  try {
    stat = statSync(source, { throwIfNoEntry: false });
  } catch (error) {
    throw new UserError(`Cannot read ${name}: ${fileProblem(error)}`);
  }
  if (!stat) throw new UserError(`There is no file ${name}`);
  if (stat.isDirectory()) throw new UserError(`${name} is a folder; give the traces in it, one for each rank`);
  return unpacked(source, name);
}

/** Chunks of so many bytes: each is parsed at once. */
const chunkBytes = 2 ** 20;

async function* textChunks(text: string): AsyncIterable<Uint8Array> {
  const bytes = Buffer.from(text, "utf8");
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}

async function* unpacked(path: string, name: string): AsyncIterable<Uint8Array> {
  const file = createReadStream(path, { highWaterMark: chunkBytes });
  let packed = false, problem: unknown;
  try {
    const head = await firstBytes(path);
    packed = head[0] === 0x1f && head[1] === 0x8b;
    if (head[0] === 0x50 && head[1] === 0x4b || head[0] === 0x28 && head[1] === 0xb5) {
      throw new UserError(`${name} is packed in a way that is not read here; unpack it, or pack it with gzip`);
    }
    if (!packed) {
      yield* file;
      return;
    }
    const gunzip = createGunzip({ chunkSize: chunkBytes });
    file.on("error", (error) => {
      problem = error;
      gunzip.destroy(error);
    });
    yield* file.pipe(gunzip);
  } catch (error) {
    if (error instanceof UserError) throw error;
    if (packed && !problem) {
      throw new UserError(`${name} is damaged or cut off: gzip cannot unpack it`, { cause: error });
    }
    throw new UserError(`Cannot read ${name}: ${fileProblem(problem ?? error)}`, { cause: error });
  } finally {
    file.destroy();
  }
}

async function firstBytes(path: string): Promise<Uint8Array> {
  for await (const chunk of createReadStream(path, { end: 3 })) return chunk;
  return new Uint8Array(0);
}
