/** WGSL sources and what is compiled from them. */
import { readFileSync } from "node:fs";
import { type Packer, packerFor, type ParameterValues } from "./parameters.ts";
import { preprocess } from "./preprocess.ts";

/** Element types of tensors: 4 bytes each, and 2 for f16. */
export type DType = "f32" | "u32" | "f16";

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
  /**
   * Its uniform block as 32-bit words, good until the next call: the fields of its `struct Parameters` by name; undefined for
   * a kernel without one.
   *
   * @throws {Error} Where a field is missing, unknown, or has a value that its type cannot hold.
   */
  pack(parameters: ParameterValues | undefined): readonly number[] | undefined;
}

/**
 * Names a kernel: `kernel("norm", "forward")` is the entry point `forward` of `kernels/norm.wgsl`. `constants` replaces
 * the values of `const NAME = ...;` declarations in the source, which are good as they stand: a file can be had with other
 * tile sizes.
 */
export function kernel(file: string, entry: string, constants: Record<string, number> = {}): Kernel {
  const values = Object.entries(constants).map(([name, value]) => `${name}=${value}`).join(",");
  let packer: Packer | undefined;
  const named: Kernel = {
    id: `${file}:${entry}(${values})`,
    file,
    entry,
    constants,
    pack: (parameters) => (packer ??= packerFor(`${file}:${entry}`, source(named)))(parameters),
  };
  return named;
}

const sources = new Map<string, string>();

/**
 * The kernel's WGSL text with its constants put in, for storage buffers of which those in the bit set `halves` (bit n for
 * binding n) hold f16. A kernel that can read or write f16 at binding n declares `alias T<n> = f32;` and names it as the
 * buffer's element type; it computes in f32, and converts in loads (`f32(x[i])`, `vec4f(x[i])`) and stores (`T1(value)`,
 * `vec4<T1>(value)`), which costs nothing where the type is f32 already.
 */
export function source(kernel: Kernel, halves = 0): string {
  let text = sources.get(kernel.file);
  if (text === undefined) sources.set(kernel.file, text = preprocess(kernel.file, read));
  for (const [name, value] of Object.entries(kernel.constants)) {
    const declaration = new RegExp(`(^|\\n)const ${name}(: *\\w+)? *= *([^;]+);`);
    const found = declaration.exec(text);
    if (!found) throw new Error(`kernels/${kernel.file}.wgsl declares no constant ${name}`);
    const literal = found[3].trim().endsWith("u") ? `${value}u` : `${value}`;
    text = text.replace(declaration, `$1const ${name}$2 = ${literal};`);
  }
  for (let binding = 0; halves >> binding; binding++) {
    if (!(halves >> binding & 1)) continue;
    const alias = `alias T${binding} = f32;`;
    if (!text.includes(alias)) throw new Error(`kernels/${kernel.file}.wgsl has no f16 form of binding ${binding}`);
    text = text.replace(alias, `alias T${binding} = f16;`);
  }
  return halves ? `enable f16;\n${text}` : text;
}

function read(file: string): string {
  return readFileSync(new URL(`../../kernels/${file}.wgsl`, import.meta.url), "utf8");
}
