/** The files of `kernels/`, read from the disk; a bundle for a browser has their texts, see `kernel_files.browser.ts`. */
import { readFileSync } from "node:fs";

/** The text of a file: `kernelFile("norm")` is that of `kernels/norm.wgsl`. */
export function kernelFile(name: string): string {
  return readFileSync(new URL(`../../kernels/${name}.wgsl`, import.meta.url), "utf8");
}
