/** Trainable parameters: described by layers, placed on a device stage by stage. */
import { alignment, type Device } from "../gpu/device.ts";
import { empty, release, sizeOf, type Tensor, view } from "../tensor.ts";
import { type Generator, generator } from "../train/random.ts";

/**
 * How a parameter starts: drawn from a normal distribution of this deviation, or uniformly between minus and plus a bound; all
 * ones (gains) or all zeros (biases); or element by element from its index and the parameter's random numbers.
 */
export type Initial =
  | { readonly normal: number }
  | { readonly uniform: number }
  | "ones"
  | "zeros"
  | ((index: number, random: Generator) => number);

/** One trainable tensor. `value` and `gradient` exist once its stage is placed. */
export interface Parameter {
  /** Unique in a model, for example "blocks.0.mlp.down.weight". */
  readonly name: string;
  /** Axes, outermost first; one axis for gains and biases. */
  readonly shape: readonly number[];
  /** What it holds before training. */
  readonly initial: Initial;
  /** The values, on the device of the stage. */
  value: Tensor;
  /** The gradient that W's add to. */
  gradient: Tensor;
}

/** Describes a parameter; reading its tensors before it is placed is an error. */
export function parameter(name: string, shape: readonly number[], initial: Initial): Parameter {
  const unplaced = (): never => {
    throw new Error(`Parameter "${name}" is not placed on a device yet`);
  };
  return {
    name,
    shape,
    initial,
    get value() {
      return unplaced();
    },
    get gradient() {
      return unplaced();
    },
  };
}

/**
 * Parameters side by side in one buffer, and their gradients in another, so that an optimizer takes them in one kernel.
 * The first `decayed` elements are matrices, which weight decay applies to; gains and biases follow.
 */
export interface ParameterBlock {
  readonly values: Tensor;
  readonly gradients: Tensor;
  readonly decayed: number;
}

/**
 * Places parameters on a device: values initialised, gradients zero. The initial values depend on `seed` and on a
 * parameter's name alone, so that every partition of a model starts from the same point; `originals` names the parameter that
 * another starts as a copy of. Several blocks come back only where one would not fit the device's largest binding.
 */
export function placeParameters(
  parameters: readonly Parameter[],
  device: Device,
  seed: number,
  originals: ReadonlyMap<string, string> = new Map(),
): ParameterBlock[] {
  const matrices = parameters.filter((parameter) => parameter.shape.length > 1);
  const vectors = parameters.filter((parameter) => parameter.shape.length <= 1);
  const { maxBufferSize, maxStorageBufferBindingSize } = device.gpu.device.limits;
  const most = Math.floor(Math.min(maxBufferSize, maxStorageBufferBindingSize) / alignment) * alignment;
  const blocks: Parameter[][] = [];
  let bytes = Infinity;
  for (const parameter of [...matrices, ...vectors]) {
    if (bytes + padded(parameter) > most) {
      blocks.push([]);
      bytes = 0;
    }
    blocks[blocks.length - 1].push(parameter);
    bytes += padded(parameter);
  }
  return blocks.map((block) => placeBlock(block, device, seed, originals));
}

function placeBlock(
  block: readonly Parameter[],
  device: Device,
  seed: number,
  originals: ReadonlyMap<string, string>,
): ParameterBlock {
  const count = block.reduce((sum, parameter) => sum + padded(parameter), 0) / 4;
  const values = empty(device, [count], "parameters");
  const gradients = empty(device, [count], "gradients");
  let offset = 0;
  let decayed = 0;
  for (const parameter of block) {
    Object.defineProperties(parameter, {
      value: { value: view(values, parameter.shape, offset), configurable: true, enumerable: true },
      gradient: { value: view(gradients, parameter.shape, offset), configurable: true, enumerable: true },
    });
    offset += padded(parameter);
    if (parameter.shape.length > 1) decayed = offset / 4;
  }
  if (!device.gpu.info.dry) { // where nothing is computed, nobody reads billions of numbers
    device.write(values, initialValues(block, count, seed, originals));
    device.write(gradients, new Float32Array(count));
  }
  return { values, gradients, decayed };
}

function initialValues(
  block: readonly Parameter[],
  count: number,
  seed: number,
  originals: ReadonlyMap<string, string>,
): Float32Array {
  const values = new Float32Array(count);
  let start = 0;
  for (const parameter of block) {
    const name = originals.get(parameter.name) ?? parameter.name;
    fillInitial(values.subarray(start, start + sizeOf(parameter.shape)), parameter.initial, `${seed}:${name}`);
    start += padded(parameter) / 4;
  }
  return values;
}

/** Gives back what {@link placeParameters} took. */
export function releaseParameters(parameters: readonly Parameter[], blocks: readonly ParameterBlock[]): void {
  for (const { value, gradient } of parameters) release(value, gradient);
  for (const { values, gradients } of blocks) release(values, gradients);
}

function padded(parameter: Parameter): number {
  return Math.ceil(sizeOf(parameter.shape) * 4 / alignment) * alignment;
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
