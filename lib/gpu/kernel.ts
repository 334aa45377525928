/** WGSL sources and what is compiled from them. */
import { UserError } from "../errors.ts";
import { expectFields, optional, string } from "../rules.ts";
import { kernelFile } from "./kernel_files.ts";
import { packerFor, type ParameterValues } from "./parameters.ts";
import { type Expanded, preprocess } from "./preprocess.ts";

/** Element types of tensors: 4 bytes each, and 2 for f16. */
export type DType = "f32" | "u32" | "f16";

/**
 * One entry point of a WGSL source, as `Device.dispatch` takes it; made by {@link kernel}.
 *
 * Binding 0 of a kernel is its uniform parameter block, the storage buffers follow from 1; a kernel without parameters
 * starts its storage buffers at 0.
 */
export interface Kernel {
  /** Unique among all kernels, constants included. */
  readonly id: string;
  /** What messages call it. */
  readonly name: string;
  /** Name of the entry point. */
  readonly entry: string;
  /** Values put in place of those in the source. */
  readonly constants: Readonly<Record<string, number>>;
  /** Its WGSL text with all directives carried out. */
  text(): string;
  /** Where line `line` of that text, counted from 1, is from: "kernels/norm.wgsl:12" for example. */
  originOf(line: number): string | undefined;
  /**
   * Its uniform block as 32-bit words, good until the next call: the fields of its `struct Parameters` by name; undefined for
   * a kernel without one.
   *
   * @throws {UserError} Where a field is missing, unknown, or has a value that its type cannot hold.
   */
  pack(parameters: ParameterValues | undefined): readonly number[] | undefined;
}

/** A kernel as text. */
export interface KernelText {
  /** The WGSL text; lines that begin with `#`, as `#include "not_finite"`, are carried out as in this project's own kernels. */
  readonly wgsl: string;
  /** Name of its function with `@compute`. */
  readonly entry: string;
  /** What messages call it; the entry's name by default. */
  readonly name?: string;
}

/**
 * A kernel from WGSL text, to be recorded by `Device.dispatch`:
 *
 * ```ts
 * import { openDevices } from "twobp";
 * import { empty, fromArray, kernel, lanes, toArray } from "twobp/ops";
 *
 * const square = kernel({
 *   entry: "square",
 *   wgsl: `
 *     struct Parameters { count: u32, scale: f32 }
 *     @group(0) @binding(0) var<uniform> p: Parameters;
 *     @group(0) @binding(1) var<storage, read_write> y: array<f32>;
 *     @group(0) @binding(2) var<storage, read> x: array<f32>;
 *
 *     @compute @workgroup_size(64)
 *     fn square(@builtin(global_invocation_id) id: vec3u) {
 *       if (id.x < p.count) { y[id.x] = p.scale * x[id.x] * x[id.x]; }
 *     }`,
 * });
 * const set = await openDevices(1);
 * const [device] = set.devices;
 * const x = fromArray(device, [3], new Float32Array([1, 2, 3]), "activations");
 * const y = empty(device, [3], "activations");
 * device.dispatch(square, { count: 3, scale: 2 }, [y, x], lanes(3));
 * console.log(await toArray(y)); // 2, 8, 18
 * set.close();
 * ```
 *
 * Parameters go by the names of the fields of `struct Parameters` (u32, i32, f32, vectors and structs of these) at binding 0;
 * the storage buffers follow in the order of their bindings, without a gap, and each must be used by the entry point. Without
 * parameters they start at 0. A buffer at binding n that may hold f16 has the element type `T<n>` of a line
 * `alias T<n> = f32;`, which becomes f16 where a dispatch is given f16 tensors: compute in f32, `f32(x[i])` and `T1(value)`
 * convert. What `#` lines there are, says kernels/README.md. The same text is compiled once a device, however often it is
 * named. Text that does not compile is found when the device has looked at it: the next wait for it names kernel and line.
 *
 * @throws {UserError} When there is no such entry point, a directive is wrong, or a parameter has a type that it cannot have.
 */
export function kernel(text: KernelText): Kernel;
/**
 * A kernel of this project's own: `kernel("norm", "forward")` is the entry point `forward` of `kernels/norm.wgsl`. `constants`
 * replaces the values of `const NAME = ...;` declarations in the source, which are good as they stand: a file can be had with
 * other tile sizes.
 */
export function kernel(file: string, entry: string, constants?: Record<string, number>): Kernel;
export function kernel(of: string | KernelText, entry = "", constants: Record<string, number> = {}): Kernel {
  if (typeof of !== "string") return fromText(of);
  const values = Object.entries(constants).map(([name, value]) => `${name}=${value}`).join(",");
  const name = `${of}:${entry}`;
  return describe(`${name}(${values})`, name, entry, constants, () => {
    let file = files.get(of);
    if (!file) files.set(of, file = preprocess(`kernels/${of}.wgsl`, kernelFile(of), kernelFile));
    return file;
  });
}

/** By the name of a file in `kernels/`. */
const files = new Map<string, Expanded>();

/** A number for each text: what kernels of the same one have in common. */
const texts = new Map<string, number>();

function fromText(text: KernelText): Kernel {
  expectFields("kernel", text, { wgsl: string, entry: string, name: optional(string) });
  const { wgsl, entry, name: called = entry } = text, name = `kernel "${called}"`;
  const expanded = preprocess(name, wgsl, kernelFile);
  const entries = [...expanded.text.matchAll(/@compute\b[^{;]*?\bfn\s+(\w+)/g)].map(([, each]) => each);
  if (!entries.includes(entry)) {
    const there = entries.length > 0 ? `it has ${entries.join(", ")}` : "there is none";
    throw new UserError(`${name}: the text has no function ${entry} with @compute; ${there}`);
  }
  const number = texts.get(wgsl) ?? texts.size;
  texts.set(wgsl, number);
  const pack = packerFor(name, expanded.text);
  return { ...describe(`${name}, text ${number}, ${entry}`, name, entry, {}, () => expanded), pack };
}

function describe(
  id: string,
  name: string,
  entry: string,
  constants: Record<string, number>,
  expanded: () => Expanded,
): Kernel {
  let packer: Kernel["pack"] | undefined;
  const described: Kernel = {
    id,
    name,
    entry,
    constants,
    text: () => expanded().text,
    originOf: (line) => expanded().origins[line - 1],
    pack: (parameters) => (packer ??= packerFor(name, source(described)))(parameters),
  };
  return described;
}

/**
 * The kernel's WGSL text with its constants put in, for storage buffers of which those in the bit set `halves` (bit n for
 * binding n) hold f16. A kernel that can read or write f16 at binding n declares `alias T<n> = f32;` and names it as the
 * buffer's element type; it computes in f32, and converts in loads (`f32(x[i])`, `vec4f(x[i])`) and stores (`T1(value)`,
 * `vec4<T1>(value)`), which costs nothing where the type is f32 already.
 */
export function source(kernel: Kernel, halves = 0): string {
  let text = kernel.text();
  for (const [name, value] of Object.entries(kernel.constants)) {
    const declaration = new RegExp(`(^|\\n)const ${name}(: *\\w+)? *= *([^;]+);`);
    const found = declaration.exec(text);
    if (!found) throw new Error(`${kernel.name} declares no constant ${name}`);
    const literal = found[3].trim().endsWith("u") ? `${value}u` : `${value}`;
    text = text.replace(declaration, `$1const ${name}$2 = ${literal};`);
  }
  for (let binding = 0; halves >> binding; binding++) {
    if (!(halves >> binding & 1)) continue;
    const alias = `alias T${binding} = f32;`;
    if (!text.includes(alias)) {
      throw new UserError(
        `${kernel.name} has no f16 form of binding ${binding}: it would declare "${alias}" and have T${binding} there`,
      );
    }
    text = text.replace(alias, `alias T${binding} = f16;`);
  }
  return halves ? `enable f16; ${text}` : text; // in the first line, so that the lines keep their numbers
}
