/**
 * The driver of last resort: SwiftShader, a Vulkan driver that runs on the processor, out of the npm package
 * `@sparticuz/chromium`. It needs no root and no system Vulkan: the package carries a Vulkan loader too.
 */
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { withBundle } from "./bundle.ts";
import { loadLibrary } from "./library.ts";

/** Where a rank finds its own copy of SwiftShader. */
export interface BundledDriver {
  /**
   * Working directory to be in while the device is made: SwiftShader reads `SwiftShader.ini` from there, and
   * {@link BundledDriver.icd} is relative to it.
   */
  folder: string;
  /** Value for `VK_DRIVER_FILES`: a list with colons, which a path may contain, so there is none in it. */
  icd: string;
}

/**
 * Unpacks SwiftShader into the user's cache folder (once) and loads its Vulkan loader where the system has none.
 * Every rank gets a copy of the library of its own, because one loaded copy has one pool of threads, and a configuration
 * that gives it one thread. Returns `undefined` where the package is not installed or holds nothing for this platform.
 */
export async function bundledDriver(rank: number): Promise<BundledDriver | undefined> {
  if (process.platform !== "linux" || process.arch !== "x64") return undefined;
  return await withBundle("swiftshader", async (bundle) => {
    // By this relative name the system's loader knows the copies apart.
    const library = `libvk_swiftshader_${rank}.so`;
    const folder = await bundle.derive(`rank${rank}`, (temporary) => {
      copyFileSync(join(bundle.folder, "libvk_swiftshader.so"), join(temporary, library));
      const icd = { file_format_version: "1.0.0", ICD: { library_path: `./${library}`, api_version: "1.0.5" } };
      writeFileSync(join(temporary, "icd.json"), JSON.stringify(icd));
      writeFileSync(join(temporary, "SwiftShader.ini"), "[Processor]\nThreadCount=1\n");
    });
    // Dawn asks for "libvulkan.so.1" by name: a copy already loaded under that name is what it gets.
    if (!loadLibrary("libvulkan.so.1")) loadLibrary(join(bundle.folder, "libvulkan.so.1"));
    return { folder, icd: "icd.json" };
  });
}
