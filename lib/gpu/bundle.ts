/**
 * Archives out of the npm package `@sparticuz/chromium`, unpacked into the user's cache folder: a Vulkan driver and fonts.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { brotliDecompressSync } from "node:zlib";
import tar from "tar-fs";

/**
 * Unpacks `bin/NAME.tar.br` (once) into a folder `inner` and returns the folder around it. `undefined` where the package is
 * not installed or has no such archive.
 */
export async function unpackBundle(name: string, inner: string): Promise<string | undefined> {
  const archive = findArchive(`${name}.tar.br`);
  if (!archive) return undefined;
  const failures: string[] = [];
  for (const base of cacheFolders()) {
    const root = join(base, "twobp", `${name}-${archive.version}`);
    try {
      mkdirSync(root, { recursive: true });
      if (!existsSync(join(root, inner))) {
        const bytes = brotliDecompressSync(readFileSync(archive.path));
        await atomically(join(root, inner), (folder) => pipeline(Readable.from([bytes]), tar.extract(folder)));
      }
      return root;
    } catch (error) {
      failures.push(`${root} (${(error as Error).message})`);
    }
  }
  throw new Error(`the bundled ${inner} could not be unpacked into ${failures.join(" or ")}`);
}

function findArchive(file: string): { path: string; version: string } | undefined {
  try {
    // The package's exports hide its package.json; its main file lies two folders below.
    let folder = dirname(createRequire(import.meta.url).resolve("@sparticuz/chromium"));
    while (!existsSync(join(folder, "package.json")) || !existsSync(join(folder, "bin"))) {
      if (dirname(folder) === folder) return undefined;
      folder = dirname(folder);
    }
    const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const path = join(folder, "bin", file);
    return existsSync(path) ? { path, version } : undefined;
  } catch {
    return undefined; // left out by the user
  }
}

function cacheFolders(): string[] {
  const home = process.env.XDG_CACHE_HOME || (homedir() && join(homedir(), ".cache"));
  return [...(home ? [home] : []), tmpdir()];
}

/** Fills a temporary folder and renames it, so that two processes starting at once both end with a whole one. */
export async function atomically(target: string, fill: (folder: string) => Promise<unknown> | void) {
  mkdirSync(dirname(target), { recursive: true });
  const temporary = mkdtempSync(target + "-");
  try {
    await fill(temporary);
    renameSync(temporary, target);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    if (!existsSync(target)) throw error;
  }
}
