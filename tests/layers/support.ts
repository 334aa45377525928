/** Checks a layer's three functions against a float64 forward pass and finite differences of it. */
import assert from "node:assert/strict";
import type { Device } from "../../lib/gpu/device.ts";
import { createGroup, releaseGroup, slotIn } from "../../lib/layers/group.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { type Placed, placeLayers } from "../../lib/layers/placed.ts";
import { backwardInput, backwardWeight, forward } from "../../lib/layers/run.ts";
import { createSaved } from "../../lib/layers/saved.ts";
import { isRead, type Sums } from "../../lib/layers/sums.ts";
import { empty, fromArray, release, sizeOf, toArray } from "../../lib/tensor.ts";
import { generator } from "../../lib/random.ts";
import { assertTensor, dirty, normal } from "../ops/support.ts";

/** Side inputs of a micro-batch by name, see `Saved.side`. */
export type Sides = Readonly<Record<string, Uint32Array>>;

/** The layer in float64: y of x, with the parameters by name. */
export type Reference = (
  x: ArrayLike<number>,
  parameters: ReadonlyMap<string, ArrayLike<number>>,
  sides: Sides,
) => ArrayLike<number>;

/** What to check. */
export interface LayerCase {
  readonly layer: Layer;
  readonly inputShape: readonly number[];
  readonly reference: Reference;
  /** Input of micro-batch `index`, where normal numbers will not do. */
  readonly input?: (index: number) => Uint32Array;
  /** Side inputs of micro-batch `index`. */
  readonly sides?: (index: number) => Sides;
  /** What is kept after I: W's needs and nothing else. */
  readonly keeps: readonly string[];
  /** The same where W makes the sums, for layers that have any: these are checked both ways. */
  readonly keepsForSums?: readonly string[];
  /** Looks at the layer's tensors when all is done. */
  readonly look?: (placed: Placed) => Promise<void>;
}

const microbatches = 3;

/**
 * Runs three micro-batches, grouped two and one as a W of width 2 would, through forward, I and W. Gradients are checked at
 * every element of x and at some of each parameter, W twice over to see that it accumulates.
 */
export async function checkLayer(device: Device, what: LayerCase): Promise<void> {
  await checkWay(device, what, what.keeps, "i");
  if (what.keepsForSums) await checkWay(device, what, what.keepsForSums, "w");
}

async function checkWay(
  device: Device,
  { layer, inputShape, reference, input, sides = () => ({}), look }: LayerCase,
  keeps: readonly string[],
  sums: Sums,
): Promise<void> {
  const atStart = device.ledger.total();
  const placed = placeLayers([layer], device, { seed: 3 });
  for (const parameter of layer.parameters) {
    const { value } = placed.parameter(parameter), { shape } = parameter;
    device.write(value, normal(sizeOf(shape), sizeOf(shape)).map((number) => 0.5 + 0.3 * number));
  }
  const parameters = new Map<string, Float64Array>();
  for (const parameter of layer.parameters) {
    parameters.set(parameter.name, Float64Array.from(await toArray(placed.parameter(parameter).value)));
  }

  const outputShape = layer.outputShape(inputShape);
  const groups = [2, 1].map((size) => createGroup(placed, size, { sums }));
  const runs = Array.from({ length: microbatches }, (_, index) => ({
    saved: createSaved(groups[index >> 1], index & 1, sidesOn(device, sides(index))),
    sides: sides(index),
    x: input?.(index) ?? normal(sizeOf(inputShape), 10 + index),
    dy: normal(sizeOf(outputShape), 20 + index),
  }));
  const lossOf = ({ x, dy, sides }: { x: ArrayLike<number>; dy: ArrayLike<number>; sides: Sides }) => {
    const y = reference(x, parameters, sides);
    return Array.from(y).reduce((sum, value, i) => sum + value * dy[i], 0);
  };

  for (const { saved, x, dy, sides } of runs) {
    const { group, index } = saved;
    const inputTensor = isRead(layer.reads.input, sums)
      ? slotIn(group, index, "x", inputShape, "activations")
      : undefined;
    const xt = inputTensor ?? fromArray(device, inputShape, x, "activations");
    if (inputTensor) device.write(inputTensor, x);
    const y = dirty(device, outputShape);
    forward(layer, y, xt, saved);
    release(xt);
    await assertTensor(y, reference(x, parameters, sides), 1e-5, "y");
    const dyt = slotIn(group, index, "dy", outputShape, "derivatives");
    device.write(dyt, dy);
    const dx = input ? undefined : dirty(device, inputShape);
    backwardInput(layer, dx, dyt, saved);
    release(dyt);
    if (dx) {
      const at = Float64Array.from(x);
      const expected = at.map((_, i) => derivative(at, i, () => lossOf({ x: at, dy, sides })));
      await assertTensor(dx, expected, 1e-5, "dx");
    }
    assert.deepEqual(saved.names().sort(), [...keeps].sort(), `kept after I, sums in ${sums}`);
  }

  const random = generator("probes");
  for (const times of [1, 2]) {
    backwardWeight(layer, runs.slice(0, 2).map(({ saved }) => saved));
    backwardWeight(layer, runs.slice(2).map(({ saved }) => saved));
    for (const parameter of layer.parameters) {
      const { name } = parameter, values = parameters.get(name)!;
      const actual = await toArray(placed.parameter(parameter).gradient);
      const largest = actual.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      for (let probe = 0; probe < 12; probe++) {
        const i = random.integer(values.length);
        const expected = times * derivative(values, i, () => runs.reduce((sum, run) => sum + lossOf(run), 0));
        assert.ok(
          Math.abs(actual[i] - expected) <= 1e-5 * largest,
          `gradient of ${name}[${i}] is ${actual[i]}, expected ${expected} after ${times}`,
        );
      }
    }
  }
  for (const { saved } of runs) saved.clear();
  groups.forEach(releaseGroup);
  await look?.(placed);
  placed.release();
  assert.equal(device.ledger.total(), atStart, "the ledger is where it was");
}

/** The side inputs on a device; the store that is given them releases them. */
function sidesOn(device: Device, sides: Sides) {
  return new Map(
    Object.entries(sides).map(([name, data]) => [name, fromArray(device, [data.length], data, "activations")]),
  );
}

/** Central differences of `f` in element `i`, extrapolated to fourth order. */
function derivative(at: Float64Array, i: number, f: () => number): number {
  const value = at[i];
  const slope = (h: number) => {
    at[i] = value + h;
    const above = f();
    at[i] = value - h;
    const below = f();
    at[i] = value;
    return (above - below) / (2 * h);
  };
  return (4 * slope(5e-4) - slope(1e-3)) / 3;
}

/** I without an input gradient, as stage 0 runs it, leaves W's gradients as they are with one. */
export async function checkSkippedInputGradient(
  device: Device,
  layer: Layer,
  inputShape: readonly number[],
): Promise<void> {
  const placed = placeLayers([layer], device, { seed: 4 });
  const gradients = layer.parameters.map((parameter) => placed.parameter(parameter).gradient);
  const results: Float32Array[][] = [];
  for (const wanted of [true, false]) {
    for (const gradient of gradients) device.write(gradient, new Float32Array(sizeOf(gradient.shape)));
    const group = createGroup(placed, 1);
    const saved = createSaved(group, 0);
    const x = fromArray(device, inputShape, normal(sizeOf(inputShape), 1), "activations");
    const outputShape = layer.outputShape(inputShape);
    const y = empty(device, outputShape, "activations");
    const dy = fromArray(device, outputShape, normal(sizeOf(outputShape), 2), "derivatives");
    const dx = wanted ? empty(device, inputShape, "derivatives") : undefined;
    forward(layer, y, x, saved);
    backwardInput(layer, dx, dy, saved);
    backwardWeight(layer, [saved]);
    results.push(await Promise.all(gradients.map(toArray)));
    saved.clear();
    releaseGroup(group);
    release(x, y, dy, dx);
  }
  assert.deepEqual(results[1], results[0]);
  placed.release();
}
