/**
 * Gradients by differences of the layer's own forward. The loss is the sum of y times dy, added up in float64, so that what y
 * has in common before and after a step cancels exactly.
 */
import { generator } from "../../random.ts";
import { empty, fromArray, release, type Tensor, toArray, writeArray } from "../../tensor.ts";
import { restoreBuffers } from "../buffers.ts";
import { createGroup } from "../group.ts";
import type { Parameter } from "../parameter.ts";
import { forward } from "../run.ts";
import { createSaved } from "../saved.ts";
import { type Difference, difference } from "./compare.ts";
import { sidesOn, type Subject } from "./subject.ts";

/** Tensors of up to so many elements are looked at everywhere, larger ones at as many places as the second says. */
const [fewElements, places] = [64, 48];

/**
 * Steps, the largest first. Powers of two, so that a number of f16's precision plus a step is exact. Larger ones suffer from
 * curvature and kinks, smaller ones from the rounding of y.
 */
const steps = [3, 4, 5, 6, 7, 8, 9].map((power) => 2 ** -power);

/** The step along a direction: so small that few kinks are within it, though they are all over the place. */
const directionStep = 2 ** -11;

/**
 * How far the slopes of three steps that follow one another may differ, as a part of the largest derivative, for their
 * derivative to be believed; two may agree by chance. The slopes ahead and behind must meet as well, extrapolated to step 0:
 * at a kink they do not, however small the steps.
 */
const settled = 5e-4;

/** How many forwards are recorded before their results are waited for. */
const atOnce = 32;

/** A comparison, and how much of it could be made. */
export interface Slopes extends Difference {
  /** Derivatives that were looked at. */
  readonly looked: number;
  /** Those of them that steps agree on; at a kink none do. */
  readonly believed: number;
}

/** One input of the forward: x, or a parameter. */
interface Place {
  readonly tensor: Tensor;
  readonly values: Float32Array;
  readonly name: string;
}

/** Compares dx, or the gradient of a parameter, of micro-batch 0 with differences of the forward, element by element. */
export async function compareElements(
  subject: Subject,
  of: Parameter | "dx",
  gradient: Float32Array,
): Promise<Slopes> {
  const random = generator("places"), count = gradient.length;
  const at = count <= fewElements
    ? Array.from(gradient.keys())
    : [...new Set([0, count - 1, ...Array.from({ length: places - 2 }, () => random.integer(count))])];
  return await withPlace(subject, of, async (x, { tensor, values, name }) => {
    const slopes = at.map((): Slope[] => []); // by place, a step each
    const derivatives = new Map<number, number>();
    let largest = 0;
    const enter = (slope: number) => {
      if (Number.isFinite(slope)) largest = Math.max(largest, Math.abs(slope));
    };
    for (const index of at) enter(gradient[index]);
    for (let last = 2; last < steps.length && derivatives.size < at.length; last++) {
      const open = [...at.keys()].filter((i) => !derivatives.has(i));
      const missing = open.flatMap((i) => steps.slice(slopes[i].length, last + 1).map((step) => ({ i, step })));
      const changes = missing.map(({ i, step }): Change => ({
        step,
        apply: (sign) => writeElement(tensor, at[i], values[at[i]] + sign * step),
      }));
      const found = await slopesOf(subject, x, changes);
      missing.forEach(({ i }, index) => slopes[i].push(found[index]));
      for (const i of open) enter(slopes[i][last].central);
      for (const i of open) {
        const [coarse, middle, fine] = slopes[i].slice(-3);
        const centrals = [coarse.central, middle.central, fine.central];
        const spread = Math.max(...centrals) - Math.min(...centrals);
        const bend = Math.abs(2 * fine.bend - middle.bend);
        if (spread <= settled * largest && bend <= 4 * settled * largest) {
          derivatives.set(i, (4 * fine.central - middle.central) / 3);
        }
      }
    }
    const believed = [...derivatives.keys()].sort((a, b) => a - b);
    const right = believed.map((i) => derivatives.get(i)!);
    const { error, where } = difference(name, tensor.shape, gradient, right, believed.map((i) => at[i]));
    return { error: believed.length > 0 ? error : 0, where, looked: at.length, believed: believed.length };
  });
}

/** Whether a tensor is so large that {@link compareElements} looks at a part of it. */
export function isLarge(gradient: Float32Array): boolean {
  return gradient.length > fewElements;
}

/**
 * The same along one random direction that moves every element: it finds what is wrong at places that were not looked at, if
 * it is not small beside the whole. The error is that of the slope, as a part of the gradient's length. Where the slopes ahead
 * and behind differ there is a kink, and what lies between them is right.
 */
export async function compareDirection(
  subject: Subject,
  of: Parameter | "dx",
  gradient: Float32Array,
): Promise<Difference> {
  const random = generator("direction");
  const direction = Float32Array.from(gradient, () => random.uniform() < 0.5 ? -1 : 1);
  return await withPlace(subject, of, async (x, { tensor, values, name }) => {
    const change: Change = {
      step: directionStep,
      apply: (sign) => writeArray(tensor, values.map((value, i) => value + sign * directionStep * direction[i])),
    };
    const [{ central: right, bend }] = await slopesOf(subject, x, [change]);
    const is = gradient.reduce((sum, value, i) => sum + value * direction[i], 0);
    const length = Math.hypot(right, Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0)));
    const off = Math.max(0, Math.abs(is - right) - Math.abs(bend));
    return {
      error: off === 0 ? 0 : Number.isNaN(off) ? Infinity : off / length,
      where: `the slope along all of ${name} is ${is.toPrecision(5)} where ${right.toPrecision(5)} is right`,
    };
  });
}

/** Does `work` with x on the device, and with that which is to be changed: x itself, or a parameter. */
async function withPlace<Result>(
  { device, placed, inputShape, inputs: [input] }: Subject,
  of: Parameter | "dx",
  work: (x: Tensor, place: Place) => Promise<Result>,
): Promise<Result> {
  const x = fromArray(device, inputShape, input, "activations");
  const tensor = of === "dx" ? x : placed.parameter(of).value;
  const result = await work(x, { tensor, values: await toArray(tensor), name: of === "dx" ? "dx" : of.name });
  release(x);
  return result;
}

/** A change of one of the forward's inputs by plus or minus a step, or by 0: back to what it was. */
interface Change {
  readonly step: number;
  readonly apply: (sign: 1 | -1 | 0) => void;
}

/** A derivative by a step to both sides. */
interface Slope {
  /** Half of what the loss above is more than that below, over the step. */
  readonly central: number;
  /** The slope ahead less the slope behind. */
  readonly bend: number;
}

async function slopesOf(subject: Subject, x: Tensor, changes: readonly Change[]): Promise<Slope[]> {
  const slopes: Slope[] = [], here = await startForward(subject, x)();
  for (let start = 0; start < changes.length; start += atOnce / 2) {
    const pairs = changes.slice(start, start + atOnce / 2).map(({ step, apply }) => {
      apply(1);
      const above = startForward(subject, x);
      apply(-1);
      const below = startForward(subject, x);
      apply(0);
      return { step, above, below };
    });
    for (const { step, above, below } of pairs) {
      const ahead = lossBetween(await above(), here, subject) / step;
      const behind = lossBetween(here, await below(), subject) / step;
      slopes.push({ central: (ahead + behind) / 2, bend: ahead - behind });
    }
  }
  return slopes;
}

/** Submits a forward of micro-batch 0; what it returns reads y. */
function startForward(subject: Subject, x: Tensor): () => Promise<ArrayBuffer> {
  const { layer, device, placed, outputShape } = subject;
  if (placed.buffers) restoreBuffers(placed.buffers);
  const saved = createSaved(createGroup(placed, 1), 0, sidesOn(subject, 0));
  const y = empty(device, outputShape, "activations");
  forward(layer, y, x, saved);
  const arrived = device.startRead(y);
  device.submit();
  saved.clear();
  release(y);
  return arrived;
}

/** How much more the loss is for one y than for another, term by term. */
function lossBetween(above: ArrayBuffer, below: ArrayBuffer, { derivatives: [dy] }: Subject): number {
  const [one, other] = [above, below].map((bytes) => new Float32Array(bytes));
  let sum = 0;
  for (let i = 0; i < dy.length; i++) sum += (one[i] - other[i]) * dy[i];
  return sum;
}

function writeElement(tensor: Tensor, index: number, value: number): void {
  tensor.device.write({ ...tensor, offset: tensor.offset + 4 * index, bytes: 4 }, new Float32Array([value]));
}
