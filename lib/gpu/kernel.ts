/** WGSL sources and what is compiled from them. */
import { readFileSync } from "node:fs";

/**
 * One entry point of a file in `kernels/`, with values for some of its module-scope constants.
 *
 * Binding 0 of a kernel is its uniform parameter block, the storage buffers follow from 1; a kernel without parameters
 * starts its storage buffers at 0.
 */
export interface Kernel {
  /** Unique among all kernels, constants included. */
  readonly id: string;
  /** Name of the file in `kernels/`, without its ending. */
  readonly file: string;
  /** Name of the entry point. */
  readonly entry: string;
  /** Values put in place of those in the source. */
  readonly constants: Readonly<Record<string, number>>;
}

/**
 * Names a kernel: `kernel("norm", "forward")` is the entry point `forward` of `kernels/norm.wgsl`. `constants` replaces
 * the values of `const NAME = ...;` declarations in the source, so that a file compiles as it stands and can still be
 * had with other tile sizes.
 */
export function kernel(file: string, entry: string, constants: Record<string, number> = {}): Kernel {
  const values = Object.entries(constants).map(([name, value]) => `${name}=${value}`).join(",");
  return { id: `${file}:${entry}(${values})`, file, entry, constants };
}

const sources = new Map<string, string>();

/** The kernel's WGSL text with its constants put in. */
export function source(kernel: Kernel): string {
  let text = sources.get(kernel.file);
  if (text === undefined) {
    text = readFileSync(new URL(`../../kernels/${kernel.file}.wgsl`, import.meta.url), "utf8");
    sources.set(kernel.file, text);
  }
  for (const [name, value] of Object.entries(kernel.constants)) {
    const declaration = new RegExp(`(^|\\n)const ${name}(: *\\w+)? *= *([^;]+);`);
    const found = declaration.exec(text);
    if (!found) throw new Error(`kernels/${kernel.file}.wgsl declares no constant ${name}`);
    const literal = found[3].trim().endsWith("u") ? `${value}u` : `${value}`;
    text = text.replace(declaration, `$1const ${name}$2 = ${literal};`);
  }
  return text;
}
