/** Runs of a layer's three functions as a pipeline makes them, and what they leave. */
import { empty, fromArray, release, sizeOf, type Tensor, toArray, writeArray } from "../../tensor.ts";
import { restoreBuffers } from "../buffers.ts";
import { createGroup, releaseGroup, slotIn } from "../group.ts";
import { isTrained, type Parameter } from "../parameter.ts";
import { backwardInput, backwardWeight, forward } from "../run.ts";
import { createSaved, type Saved } from "../saved.ts";
import { isRead, type Sums } from "../sums.ts";
import { hasGradient, sidesOn, type Subject } from "./subject.ts";

/** How a run differs from the plain one: F, I and W of micro-batch 0, on tensors that hold zeros. */
export interface Course {
  /** How many micro-batches one W takes. */
  readonly microbatches?: number;
  /** The first of them. */
  readonly first?: number;
  /** Whether each has memory of its own, instead of slots side by side. */
  readonly apart?: boolean;
  /** Whether I and W are one backward, B. */
  readonly whole?: boolean;
  /** Who makes the sums that only W reads, see `Saved.sums`; I by default. */
  readonly sums?: Sums;
  /** Whether there is a dx to be written; by default where x has a gradient. */
  readonly wanted?: boolean;
  /** What y and dx hold before they are written. */
  readonly before?: number;
  /** What the parameters' gradients hold before W. */
  readonly start?: (parameter: Parameter) => Float32Array;
  /** Whether x, y and dy are written over once the caller has released them and nobody holds them. */
  readonly spoil?: boolean;
  /** The last function that is called. */
  readonly last?: "F" | "I" | "W";
  /** Is told of x and dy of each micro-batch. */
  readonly onGiven?: (name: "x" | "dy", tensor: Tensor) => void;
  /** Looks at what the layer keeps of a micro-batch when it has run F or I. */
  readonly look?: (after: "F" | "I", saved: Saved) => void;
}

/** What a run gives. */
export interface Outcome {
  /** y of each micro-batch. */
  readonly outputs: readonly Float32Array[];
  /** dx of each micro-batch; none where it is not wanted. */
  readonly inputGradients: readonly Float32Array[];
  /** The parameters' gradients after the last I, and at the end. */
  readonly gradients: {
    readonly afterI: ReadonlyMap<Parameter, Float32Array>;
    readonly end: ReadonlyMap<Parameter, Float32Array>;
  };
  /** The state buffers at the end, one after the other. */
  readonly state: Float32Array;
  /** Names of tensors that the layer was only to read, and has written. */
  readonly changed: readonly string[];
  /** Bytes more in use than before. */
  readonly left: number;
}

/** Runs a course. What the layer throws is thrown on; the caller takes back the memory then. */
export async function run(subject: Subject, course: Course = {}): Promise<Outcome> {
  const { layer, device, placed, dtype, inputShape, outputShape, inputs, derivatives } = subject;
  const { microbatches = 1, first = 0, apart = false, whole = false, before = 0, spoil = false, last = "W", sums } =
    course;
  const wanted = (course.wanted ?? true) && hasGradient(subject);
  for (const parameter of layer.parameters.filter(isTrained)) {
    const values = course.start?.(parameter) ?? new Float32Array(sizeOf(parameter.shape));
    writeArray(placed.parameter(parameter).gradient, values);
  }
  if (placed.buffers) restoreBuffers(placed.buffers);
  const atStart = device.ledger.total();
  const groups = apart || whole
    ? Array.from({ length: microbatches }, () => createGroup(placed, 1, { delayed: !whole, sums }))
    : [createGroup(placed, microbatches, { sums })];
  const stays = Array.from({ length: microbatches }, (_, index) => ({
    microbatch: first + index,
    saved: createSaved(
      groups[groups.length > 1 ? index : 0],
      groups.length > 1 ? 0 : index,
      sidesOn(subject, first + index),
    ),
  }));
  /** A tensor of the micro-batch that comes from outside, where the layer's `reads` want it. */
  const given = (saved: Saved, name: "x" | "dy", shape: readonly number[], data: Float32Array | Uint32Array) => {
    const reading = name === "x" ? layer.reads.input : layer.reads.gradient;
    const category = name === "x" ? "activations" : "derivatives";
    const type = data instanceof Uint32Array ? "u32" : dtype;
    const tensor = isRead(reading, saved.sums)
      ? slotIn(saved.group, saved.index, name, shape, category, type)
      : empty(device, shape, category, type);
    writeArray(tensor, data);
    course.onGiven?.(name, tensor);
    return tensor;
  };
  const filled = (shape: readonly number[]) =>
    fromArray(device, shape, new Float32Array(sizeOf(shape)).fill(before), "activations", dtype);
  const changed = new Set<string>();
  const compare = async (name: string, tensor: Tensor, data: Float32Array | Uint32Array) => {
    const bytes = await device.read(tensor);
    const now = tensor.dtype === "u32" ? new Uint32Array(bytes) : await toArray(tensor);
    if (now.some((value, i) => value !== data[i])) changed.add(name);
  };
  /** Gives tensors up, and writes over those that nobody else holds. */
  const giveUp = (...tensors: readonly Tensor[]) => {
    release(...tensors);
    for (const tensor of tensors) {
      if (spoil && tensor.dtype !== "u32" && tensor.storage.references === 0) spoilTensor(tensor);
    }
  };

  const outputs: Float32Array[] = [], inputGradients: Float32Array[] = [];
  for (const { microbatch, saved } of stays) {
    const x = given(saved, "x", inputShape, inputs[microbatch]), y = filled(outputShape);
    forward(layer, y, x, saved);
    outputs.push(await toArray(y));
    await compare("x", x, inputs[microbatch]);
    giveUp(x, y);
    course.look?.("F", saved);
  }
  for (const { microbatch, saved } of last === "F" ? [] : stays) {
    const dy = given(saved, "dy", outputShape, derivatives[microbatch]);
    const dx = wanted ? filled(inputShape) : undefined;
    backwardInput(layer, dx, dy, saved);
    if (dx) inputGradients.push(await toArray(dx));
    await compare("dy", dy, derivatives[microbatch]);
    giveUp(dy);
    release(dx);
    course.look?.("I", saved);
    if (whole) backwardWeight(layer, [saved]);
  }
  const afterI = await gradientsOf(subject);
  if (last === "W" && !whole) backwardWeight(layer, stays.map(({ saved }) => saved));
  for (const { saved } of stays) saved.clear();
  groups.forEach(releaseGroup);
  const end = await gradientsOf(subject);
  return {
    outputs,
    inputGradients,
    gradients: { afterI, end },
    state: placed.buffers ? await toArray(placed.buffers.values) : new Float32Array(),
    changed: [...changed],
    left: device.ledger.total() - atStart,
  };
}

/** Makes every element of a tensor a NaN. */
export function spoilTensor(tensor: Tensor): void {
  writeArray(tensor, new Float32Array(sizeOf(tensor.shape)).fill(NaN));
}

async function gradientsOf({ layer, placed }: Subject): Promise<Map<Parameter, Float32Array>> {
  const gradients = new Map<Parameter, Float32Array>();
  for (const parameter of layer.parameters.filter(isTrained)) {
    gradients.set(parameter, await toArray(placed.parameter(parameter).gradient));
  }
  return gradients;
}
