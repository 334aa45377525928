/**
 * The driver of last resort: SwiftShader, a Vulkan driver that runs on the processor, out of the npm package
 * `@sparticuz/chromium`. It needs no root and no system Vulkan: the package carries a Vulkan loader too.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { brotliDecompressSync } from "node:zlib";
import tar from "tar-fs";
import { loadLibrary } from "./library.ts";

/** Where a rank finds its own copy of SwiftShader. */
export interface BundledDriver {
  /** Working directory to be in while the device is made: SwiftShader reads `SwiftShader.ini` from there. */
  folder: string;
  /** Value for `VK_DRIVER_FILES`. */
  icd: string;
}

/**
 * Unpacks SwiftShader into the user's cache folder (once) and loads its Vulkan loader where the system has none.
 * Every rank gets a copy of the library of its own, because one loaded copy has one pool of threads, and a configuration
 * that gives it one thread. Returns `undefined` where the package is not installed or holds nothing for this platform.
 */
export async function bundledDriver(rank: number): Promise<BundledDriver | undefined> {
  if (process.platform !== "linux" || process.arch !== "x64") return undefined;
  const archive = findArchive();
  if (!archive) return undefined;
  const root = await unpacked(archive);
  const folder = join(root, `rank${rank}`);
  if (!existsSync(folder)) {
    await atomically(folder, (temporary) => {
      cpSync(join(root, "driver", "libvk_swiftshader.so"), join(temporary, "libvk_swiftshader.so"));
      cpSync(join(root, "driver", "vk_swiftshader_icd.json"), join(temporary, "icd.json"));
      writeFileSync(join(temporary, "SwiftShader.ini"), "[Processor]\nThreadCount=1\n");
    });
  }
  // Dawn asks for "libvulkan.so.1" by name: a copy already loaded under that name is what it gets.
  if (!loadLibrary("libvulkan.so.1")) loadLibrary(join(root, "driver", "libvulkan.so.1"));
  return { folder, icd: join(folder, "icd.json") };
}

function findArchive(): { path: string; version: string } | undefined {
  try {
    // The package's exports hide its package.json; its main file lies two folders below.
    let folder = dirname(createRequire(import.meta.url).resolve("@sparticuz/chromium"));
    while (!existsSync(join(folder, "package.json")) || !existsSync(join(folder, "bin"))) {
      if (dirname(folder) === folder) return undefined;
      folder = dirname(folder);
    }
    const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const path = join(folder, "bin", "swiftshader.tar.br");
    return existsSync(path) ? { path, version } : undefined;
  } catch {
    return undefined; // left out by the user
  }
}

async function unpacked(archive: { path: string; version: string }): Promise<string> {
  const failures: string[] = [];
  for (const base of cacheFolders()) {
    const root = join(base, "twobp", `swiftshader-${archive.version}`);
    try {
      mkdirSync(root, { recursive: true });
      if (!existsSync(join(root, "driver"))) {
        const bytes = brotliDecompressSync(readFileSync(archive.path));
        await atomically(join(root, "driver"), (folder) => pipeline(Readable.from([bytes]), tar.extract(folder)));
      }
      return root;
    } catch (error) {
      failures.push(`${root} (${(error as Error).message})`);
    }
  }
  throw new Error(`the bundled driver could not be unpacked into ${failures.join(" or ")}`);
}

function cacheFolders(): string[] {
  const home = process.env.XDG_CACHE_HOME || (homedir() && join(homedir(), ".cache"));
  return [...(home ? [home] : []), tmpdir()];
}

/** Fills a temporary folder and renames it, so that two processes starting at once both end with a whole one. */
async function atomically(target: string, fill: (folder: string) => Promise<unknown> | void) {
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
