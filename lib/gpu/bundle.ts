/**
 * Archives out of the npm package `@sparticuz/chromium`, unpacked into the user's cache folder: a Vulkan driver and fonts.
 * What lies there is compared with what was unpacked before it is used, and unpacked again where it differs.
 */
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { brotliDecompressSync } from "node:zlib";
import type tar from "tar-fs";
import { makeFolderWhole } from "../files.ts";
import { optional } from "../optional.ts";
import { inCache } from "./cache_folder.ts";

/** An unpacked archive. */
export interface Bundle {
  /** Folder with what the archive holds. */
  readonly folder: string;
  /** A folder beside it, made once by `fill` and looked over like it at each later start. */
  derive(name: string, fill: (folder: string) => Promise<unknown> | void): Promise<string>;
}

/**
 * Unpacks `bin/NAME.tar.br`, once, and does `use` with it. `undefined` where the package is not installed or has no such
 * archive.
 *
 * @throws {UserError} When there is no place for it.
 */
export async function withBundle<T>(name: string, use: (bundle: Bundle) => Promise<T> | T): Promise<T | undefined> {
  const path = findArchive(`${name}.tar.br`);
  if (!path) return undefined;
  const origin = await originOf(path);
  return await inCache(`the unpacked ${name}`, async (cache) => {
    const root = join(cache, `${name}-${origin.slice(0, 16)}`);
    mkdirSync(root, { recursive: true, mode: 0o700 });
    const derive = (name: string, fill: (folder: string) => Promise<unknown> | void) =>
      sound(join(root, name), origin, fill);
    const folder = await derive("unpacked", async (folder) => {
      const { default: tar } = await optional("tar-fs", "Archives are unpacked by", () => import("tar-fs"));
      const bytes = brotliDecompressSync(readFileSync(path));
      // As root, tar would give the files to whoever packed them.
      const options = { chown: false } as tar.ExtractOptions;
      await pipeline(Readable.from([bytes]), tar.extract(folder, options));
    });
    return await use({ folder, derive });
  });
}

/** The path of `bin/FILE` of the package, where it is installed. */
export function findArchive(file: string): string | undefined {
  try {
    // The package's exports hide its package.json; its main file lies two folders below.
    let folder = dirname(createRequire(import.meta.url).resolve("@sparticuz/chromium"));
    while (!existsSync(join(folder, "package.json")) || !existsSync(join(folder, "bin"))) {
      if (dirname(folder) === folder) return undefined;
      folder = dirname(folder);
    }
    const path = join(folder, "bin", file);
    return existsSync(path) ? path : undefined;
  } catch {
    return undefined; // left out by the user
  }
}

const origins = new Map<string, Promise<string>>();

/** SHA-256 of an archive, read once in a process. */
function originOf(path: string): Promise<string> {
  let origin = origins.get(path);
  if (!origin) origins.set(path, origin = hashOf(readFileSync(path)));
  return origin;
}

/** Lists what a folder holds, and from which archive. */
const listName = "contents.json";

interface Contents {
  readonly origin: string;
  /** SHA-256 of each file. */
  readonly files: Readonly<Record<string, string>>;
}

/** Folders that have been looked over in this process. */
const looked = new Map<string, Promise<string>>();

/** `target` as `fill` makes it, made where it is missing or holds anything else. */
function sound(
  target: string,
  origin: string,
  fill: (folder: string) => Promise<unknown> | void,
): Promise<string> {
  const known = looked.get(target);
  if (known) return known;
  const found = (async () => {
    if (await isSound(target, origin)) return target;
    const isGood = () => isSound(target, origin);
    await makeFolderWhole(target, async (folder) => {
      await fill(folder);
      writeFileSync(join(folder, listName), JSON.stringify({ origin, files: await listFiles(folder) }));
    }, isGood);
    if (!await isGood()) throw new Error("what was just unpacked there has changed");
    return target;
  })();
  looked.set(target, found);
  found.catch(() => looked.delete(target));
  return found;
}

async function isSound(folder: string, origin: string): Promise<boolean> {
  try {
    const { origin: written, files }: Contents = JSON.parse(readFileSync(join(folder, listName), "utf8"));
    if (written !== origin) return false;
    const found = await listFiles(folder);
    const names = Object.keys(found);
    return names.length === Object.keys(files).length && names.every((name) => found[name] === files[name]);
  } catch {
    return false; // not there, not ours, or half of it
  }
}

/** Hashes of all files in a folder, the list of them left out. */
async function listFiles(folder: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()) {
    const path = join(folder, name);
    const stat = lstatSync(path);
    if (stat.isDirectory() || name === listName) continue;
    if (!stat.isFile()) throw new Error(`${path} is no file`);
    files[name] = await hashOf(readFileSync(path));
  }
  return files;
}

/** Not `createHash`, which takes Deno ten times as long. */
async function hashOf(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return Array.from(
    new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)),
    (byte) => byte.toString(16).padStart(2, "0"),
  ).join("");
}
