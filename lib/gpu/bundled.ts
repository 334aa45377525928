/**
 * The driver of last resort: SwiftShader, a Vulkan driver that runs on the processor, out of the npm package
 * `@sparticuz/chromium`. It needs no root and no system Vulkan: the package carries a Vulkan loader too.
 */
import { cpSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { atomically, unpackBundle } from "./bundle.ts";
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
  const root = await unpackBundle("swiftshader", "driver");
  if (!root) return undefined;
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
