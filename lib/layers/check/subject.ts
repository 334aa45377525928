/** A layer under examination: placed, with the numbers that every run of it is given. */
import { UserError } from "../../errors.ts";
import type { Device } from "../../gpu/device.ts";
import { fromHalf, toHalf } from "../../half.ts";
import { generator } from "../../random.ts";
import { fromArray, sizeOf, type Tensor, toArray, writeArray } from "../../tensor.ts";
import type { Layer } from "../layer.ts";
import { copyMasters } from "../parameter_blocks.ts";
import { type Placed, placeLayers } from "../placed.ts";

/** Side inputs of a micro-batch by name, see `Saved.side`. */
export type Sides = Readonly<Record<string, Uint32Array>>;

/** What each run of the layer is given. */
export interface Subject {
  /** The layer. */
  readonly layer: Layer;
  /** Where its tensors are. */
  readonly device: Device;
  /** Its parameters and state. */
  readonly placed: Placed;
  /** Of activations, derivatives and what kernels read of the parameters. */
  readonly dtype: "f32" | "f16";
  /** Of x. */
  readonly inputShape: readonly number[];
  /** Of y. */
  readonly outputShape: readonly number[];
  /** Of each micro-batch x; whole numbers have no gradient. */
  readonly inputs: readonly (Float32Array | Uint32Array)[];
  /** Of each micro-batch dy. */
  readonly derivatives: readonly Float32Array[];
  /** Of each micro-batch its side inputs. */
  readonly sides: readonly Sides[];
}

/** What a subject's numbers are made of. */
export interface SubjectNumbers {
  /** Of x. */
  readonly inputShape: readonly number[];
  /** How many micro-batches there are. */
  readonly microbatches: number;
  /** The x of a micro-batch, where normal numbers will not do. */
  readonly input?: (microbatch: number) => Float32Array | Uint32Array;
  /** Of each micro-batch its side inputs. */
  readonly sides: readonly Sides[];
}

/** Normal numbers that f16 holds exactly: the same for both precisions, and f32 holds them plus or minus a step as well. */
function normal(count: number, seed: string): Float32Array<ArrayBuffer> {
  const random = generator(seed);
  return asHalves(Float32Array.from({ length: count }, () => random.normal()));
}

/** The nearest numbers that f16 holds. */
export function asHalves(numbers: Float32Array): Float32Array<ArrayBuffer> {
  return fromHalf(toHalf(numbers));
}

/**
 * Places the layer with parameters a little off their initial values, so that what starts at zero does not hide what it
 * multiplies.
 */
export async function createSubject(
  layer: Layer,
  device: Device,
  dtype: "f32" | "f16",
  { inputShape, microbatches, input, sides }: SubjectNumbers,
): Promise<Subject> {
  const outputShape = layer.outputShape(inputShape);
  const placed = placeLayers([layer], device, { dtype });
  for (const parameter of layer.parameters) {
    const { master } = placed.parameter(parameter);
    const off = normal(sizeOf(parameter.shape), `parameter ${parameter.name}`);
    const initial = await toArray(master);
    writeArray(master, asHalves(initial.map((value, i) => value + off[i] / 8)));
  }
  copyMasters(placed.blocks);
  device.submit();
  const each = <Result>(make: (microbatch: number) => Result) =>
    Array.from({ length: microbatches }, (_, i) => make(i));
  return {
    ...{ layer, device, placed, dtype, inputShape, outputShape },
    inputs: each((microbatch) => input ? given(microbatch, input) : normal(sizeOf(inputShape), `x ${microbatch}`)),
    derivatives: each((microbatch) => normal(sizeOf(outputShape), `dy ${microbatch}`)),
    sides,
  };
}

function given(microbatch: number, input: NonNullable<SubjectNumbers["input"]>): Float32Array | Uint32Array {
  const x = input(microbatch);
  if (x instanceof Uint32Array) return x;
  const halves = x instanceof Float32Array ? asHalves(x) : undefined;
  if (halves?.every(Number.isFinite)) return halves;
  throw new UserError(
    `checkGradients: input(${microbatch}) must give a Uint32Array, or a Float32Array of numbers that f16 holds too, ` +
      "finite and no larger than 65504",
  );
}

/** The side inputs of a micro-batch on the device; the store that is given them releases them. */
export function sidesOn({ device, sides }: Subject, microbatch: number): Map<string, Tensor> {
  return new Map(
    Object.entries(sides[microbatch]).map((
      [name, data],
    ) => [name, fromArray(device, [data.length], data, "activations")]),
  );
}

/** Whether x has a gradient: whole numbers have none. */
export function hasGradient({ inputs }: Subject): boolean {
  return !(inputs[0] instanceof Uint32Array);
}
