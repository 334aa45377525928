/** The parameters of a stage in memory: side by side, so that one kernel takes them all. */
import { UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { largestBuffer } from "../gpu/pool.ts";
import { alignment } from "../memory.ts";
import { scale } from "../ops/elementwise.ts";
import { generator } from "../random.ts";
import { bytesOf, type DType, empty, release, retain, sizeOf, type Tensor, view, writeArray } from "../tensor.ts";
import type { Initial, Parameter } from "./parameter.ts";

/** The tensors of one parameter on a device, each of the parameter's shape. */
export interface PlacedParameter {
  /** The values as kernels read them; f16 in mixed precision. */
  readonly value: Tensor;
  /**
   * The values as they are trained, f32. In mixed precision `value` is a copy of them: most updates are too small to
   * change an f16 (Micikevicius et al., arXiv 1710.03740, section 3.1). Otherwise, and of what is frozen, the two are one.
   */
  readonly master: Tensor;
  /**
   * The gradient that W's add to, f32: in f16 the sum over the micro-batches would lose the small ones. A frozen parameter has none,
   * and it is an error to ask for it.
   */
  readonly gradient: Tensor;
}

/**
 * Parameters side by side in one buffer, and their gradients in another, so that an optimizer takes them in one kernel.
 * The first `decayed` elements are matrices, which weight decay applies to; gains and biases follow. Between the
 * parameters is padding, which is 0 and stays so.
 */
export interface ParameterBlock {
  /** The values as they are trained, flat, f32. */
  readonly masters: Tensor;
  /** The f16 copy of the masters, which kernels read; in f32 the masters themselves. */
  readonly values: Tensor;
  /** The gradients, flat, f32. */
  readonly gradients: Tensor;
  /** How many elements at the beginning are of matrices. */
  readonly decayed: number;
  /** The parameters, in the order of their places. */
  readonly parameters: readonly Parameter[];
  /** The element that each of the parameters starts at. */
  readonly starts: readonly number[];
  /** The tensors of each parameter: its part of the three. */
  readonly parts: readonly PlacedParameter[];
}

/** Frozen parameters side by side in one buffer, which nothing updates. */
export type FrozenBlock = Pick<ParameterBlock, "values" | "parameters" | "parts">;

/** How layers are placed. */
export interface PlaceOptions {
  /** Of the initial values, which depend on it and on a parameter's name alone; 0 by default. */
  readonly seed?: number;
  /** By the name of a parameter that starts as a copy of another, the other's name. */
  readonly originals?: ReadonlyMap<string, string>;
  /** What kernels read; with "f16" it is a copy of f32 masters. "f32" by default. */
  readonly dtype?: "f32" | "f16";
  /** What a parameter of this name must have in common with those that it shares a block with; nothing by default. */
  readonly kindOf?: (name: string) => unknown;
}

/** The parameter that element `index` of a block belongs to; padding belongs to the one before it. */
export function parameterAt({ parameters, starts }: ParameterBlock, index: number): Parameter {
  let at = parameters.length - 1;
  while (starts[at] > index) at--;
  return parameters[at];
}

/**
 * Places parameters that are trained on a device: values initialised, gradients zero. The initial values depend on `seed` and on a
 * parameter's name alone, so that every partition of a model starts from the same point; `originals` names the parameter that
 * another starts as a copy of. Several blocks come back where parameters are of several kinds, and where one would not fit the
 * device's largest binding.
 *
 * With `dtype` "f16" kernels read an f16 copy, which counts as parameters; the f32 masters count as optimizer then, whose
 * memory they are, as with ZeRO (Rajbhandari et al., arXiv 1910.02054, section 3.1). Gains and biases are copied like
 * the rest: f16 holds them as exactly as it holds the activations that they meet.
 *
 * @throws {UserError} Where a single parameter takes more than the device's largest binding.
 */
export function placeParameters(
  parameters: readonly Parameter[],
  device: Device,
  options: PlaceOptions = {},
): ParameterBlock[] {
  const { dtype = "f32", kindOf = () => undefined } = options;
  const kinds = new Map<unknown, Parameter[]>();
  for (const parameter of parameters) {
    const kind = kindOf(parameter.name), others = kinds.get(kind);
    if (others) others.push(parameter);
    else kinds.set(kind, [parameter]);
  }
  return [...kinds.values()]
    .flatMap((alike) => inBindings(alike, device, dtype))
    .map((block) => placeBlock(block, device, options));
}

/** Places parameters that are frozen: values as kernels read them, in their one type, and nothing else. */
export function placeFrozen(
  parameters: readonly Parameter[],
  device: Device,
  options: PlaceOptions = {},
): FrozenBlock[] {
  const { dtype = "f32" } = options;
  return inBindings(parameters, device, dtype, bytesOf([1], dtype)).map((block) => {
    const starts = startsOf(block, dtype);
    const values = empty(device, [starts[block.length]], "parameters", dtype);
    if (!device.gpu.info.dry) writeArray(values, initialValues(block, starts, options));
    const parts = block.map(({ name, shape }, index): PlacedParameter => {
      const own = () => partOf(values, shape, starts[index]);
      return {
        value: own(),
        master: own(),
        get gradient(): never {
          throw new Error(`"${name}" is frozen: it has no gradient`);
        },
      };
    });
    return { values, parameters: block, parts };
  });
}

/** The blocks that parameters make, matrices first: each no longer than what the device can bind, of elements of so many bytes. */
function inBindings(
  parameters: readonly Parameter[],
  device: Device,
  dtype: DType,
  elementBytes = 4, // masters and gradients are f32
): Parameter[][] {
  const limit = largestBuffer(device.gpu.device), most = Math.floor(limit / alignment) * alignment;
  const blocks: Parameter[][] = [];
  let bytes = Infinity;
  for (const parameter of [...parameters.filter(isMatrix), ...parameters.filter((each) => !isMatrix(each))]) {
    const more = elementBytes * padded(parameter, dtype);
    if (more > most) {
      const { name, shape } = parameter;
      throw new UserError(
        `The model does not fit: ${device.place} (${device.gpu.info.name}) allows ${limit} bytes in one buffer, and the ` +
          `parameter "${name}" [${shape.join(", ")}] takes ${more}; give it fewer rows or columns, as by a smaller ` +
          `vocabulary or width`,
      );
    }
    if (bytes + more > most) {
      blocks.push([]);
      bytes = 0;
    }
    blocks[blocks.length - 1].push(parameter);
    bytes += more;
  }
  return blocks;
}

const isMatrix = ({ shape }: Parameter) => shape.length > 1;

/** The tensor of the parameter that starts at an element of a flat one. */
function partOf(whole: Tensor, shape: readonly number[], start: number): Tensor {
  return view(whole, shape, bytesOf([start], whole.dtype));
}

function placeBlock(block: readonly Parameter[], device: Device, options: PlaceOptions): ParameterBlock {
  const { dtype = "f32" } = options;
  const starts = startsOf(block, dtype);
  const count = starts[block.length];
  const mixed = dtype === "f16";
  const masters = empty(device, [count], mixed ? "optimizer" : "parameters");
  const values = mixed ? empty(device, [count], "parameters", dtype) : retain(masters);
  const gradients = empty(device, [count], "gradients");
  const parts = block.map(({ shape }, index): PlacedParameter => {
    const [value, master, gradient] = [values, masters, gradients].map((whole) => partOf(whole, shape, starts[index]));
    return { value, master, gradient };
  });
  const decayed = starts[block.filter(isMatrix).length];
  if (!device.gpu.info.dry) { // where nothing is computed, nobody reads billions of numbers
    device.write(masters, initialValues(block, starts, options));
    device.write(gradients, new Float32Array(count));
  }
  const placed = { masters, values, gradients, decayed, parameters: block, starts, parts };
  copyMasters([placed]);
  return placed;
}

/** Records, in mixed precision, the copy of the masters to what kernels read: to be called when masters have been written. */
export function copyMasters(blocks: readonly ParameterBlock[]): void {
  for (const { masters, values } of blocks) if (values.dtype !== masters.dtype) scale(values, masters, 1);
}

/** The element that each parameter starts at, and at the end that behind the last. */
function startsOf(block: readonly Parameter[], dtype: DType): number[] {
  const starts = [0];
  for (const parameter of block) starts.push(starts[starts.length - 1] + padded(parameter, dtype));
  return starts;
}

function initialValues(
  block: readonly Parameter[],
  starts: readonly number[],
  { seed = 0, originals = new Map() }: PlaceOptions,
): Float32Array {
  const values = new Float32Array(starts[block.length]);
  for (const [index, parameter] of block.entries()) {
    const name = originals.get(parameter.name) ?? parameter.name;
    const start = starts[index];
    fillInitial(values.subarray(start, start + sizeOf(parameter.shape)), parameter.initial, `${seed}:${name}`);
  }
  return values;
}

/** Gives back what {@link placeParameters} took. */
export function releaseParameters(blocks: readonly ParameterBlock[]): void {
  for (const { masters, values, gradients, parts } of blocks) {
    for (const { value, master, gradient } of parts) release(value, master, gradient);
    release(masters, values, gradients);
  }
}

/** Gives back what {@link placeFrozen} took. */
export function releaseFrozen(blocks: readonly FrozenBlock[]): void {
  for (const { values, parts } of blocks) {
    for (const { value, master } of parts) release(value, master);
    release(values);
  }
}

/** Elements that a parameter takes, such that the next one starts where a kernel can be bound to it, in every block. */
function padded(parameter: Parameter, dtype: DType): number {
  const grain = alignment / bytesOf([1], dtype);
  return Math.ceil(sizeOf(parameter.shape) / grain) * grain;
}

function fillInitial(target: Float32Array, initial: Initial, seed: string) {
  if (initial === "zeros") return;
  if (initial === "ones") {
    target.fill(1);
    return;
  }
  const random = generator(seed);
  const next = typeof initial === "function"
    ? (index: number) => initial(index, random)
    : "normal" in initial
    ? () => initial.normal * random.normal()
    : () => initial.uniform * (2 * random.uniform() - 1);
  for (let i = 0; i < target.length; i++) target[i] = next(i);
}
