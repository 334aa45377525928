/** Rotary position embedding, in place on the heads of a packed tensor. It has no parameters: p1 only. */
import { UserError } from "../errors.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor, writeArray } from "../tensor.ts";
import { lanes } from "./elementwise.ts";
import { expectShape } from "./shapes.ts";
import { singleOperation } from "./variants.ts";

/** How Llama 3.1 and later stretch the rotation for contexts that are longer than those they were first trained with. */
export interface RopeScaling {
  /** What slow frequencies are divided by, 1 or more. */
  readonly factor: number;
  /** Frequencies that turn less often than this over the original length are slow. */
  readonly lowFrequencyFactor: number;
  /** Those that turn more often are left alone; above `lowFrequencyFactor`, and those between the two are interpolated. */
  readonly highFrequencyFactor: number;
  /** Tokens of a sequence before contexts became longer. */
  readonly originalLength: number;
}

/** Where the heads lie that {@link rope} turns, and how fast. */
export interface RopeShape {
  /** Rows of a sequence, T: the position of a row is `row % T`. */
  readonly length: number;
  /** Heads to turn, of queries and keys together. They lie first in a row, one after the other. */
  readonly heads: number;
  /** Elements of a head, even. */
  readonly headSize: number;
  /** Elements of a row. */
  readonly rowStride: number;
  /** 10,000 by default. */
  readonly base?: number;
  /** None by default. */
  readonly scaling?: RopeScaling;
}

/**
 * Turns the pair (i, i + headSize / 2) of each head by `position * base^(-2i / headSize)` (Su et al., "RoFormer", 2021,
 * with the pairs of Hugging Face's LLaMA), or by what `scaling` makes of that. x: [R, rowStride], in place; what lies behind
 * the heads is left alone. The first row of a sequence is at position 0, or where `first`, u32 [1], says.
 */
export function rope(x: Tensor, shape: RopeShape, first?: Tensor): void {
  turn("rope", x, shape, 1, first);
}

/** The gradient of {@link rope}, in place on dx: [R, rowStride]: the same turn backwards. */
export function ropeBackward(dx: Tensor, shape: RopeShape): void {
  turn("ropeBackward", dx, shape, -1);
}

function turn(operation: string, x: Tensor, shape: RopeShape, direction: 1 | -1, first?: Tensor) {
  const { heads, headSize, rowStride } = shape;
  const rows = sizeOf(x.shape) / rowStride;
  if (!Number.isInteger(rows) || headSize % 2 !== 0 || heads * headSize > rowStride) {
    throw new UserError(
      `${operation}: [${x.shape}] does not hold rows of ${rowStride} that begin with ${heads} heads of ${headSize}`,
    );
  }
  if (first) expectShape(operation, "first", first, [1], "u32");
  ropeOperation.run([x, shape, direction, first]);
}

const ropeOperation = singleOperation<[x: Tensor, shape: RopeShape, direction: 1 | -1, first?: Tensor]>({
  name: "rope", // its gradient, too
  kernel: "rope:rotate",
  outputs: 1,
  bytes: ([x, { heads, headSize, rowStride }]) => 2 * x.bytes * heads * headSize / rowStride,
  record(x, shape, direction, first) {
    const { length, heads, headSize, rowStride } = shape;
    const rows = sizeOf(x.shape) / rowStride;
    const plan = planOf(shape);
    const pairs = headSize / 2 / plan.perLane;
    x.device.dispatch(
      first ? plan.kernelFrom : plan.kernel,
      { rows, length, heads, stride: rowStride / plan.perLane, pairs, direction, frequencies: plan.frequencies },
      first ? [x, first] : [x],
      lanes(rows * pairs),
    );
  },
  prepare: ([, , , first]) => first && writeArray(first, Uint32Array.of(0)),
});

interface Plan {
  kernel: Kernel;
  /** From a position on. */
  kernelFrom: Kernel;
  /** Pairs that an invocation turns in each head. */
  perLane: 1 | 4;
  frequencies: number[];
}

const plans = new Map<string, Plan>();

/** Frequencies are rounded to float32 once, as PyTorch has them, not computed on the GPU: exp2() there is inexact. */
function planOf({ headSize, rowStride, base = 10_000, scaling }: RopeShape): Plan {
  const key = [headSize, rowStride % 4, base, ...scaling ? scalingKeys.map((name) => scaling[name]) : []].join();
  let plan = plans.get(key);
  if (!plan) {
    const perLane = headSize % 8 === 0 && rowStride % 4 === 0 ? 4 : 1;
    const vectors = Math.ceil(headSize / 8);
    const entry = perLane === 4 ? "rotate4" : "rotate", constants = { FREQUENCIES: vectors };
    plan = {
      perLane,
      kernel: kernel("rope", entry, constants),
      kernelFrom: kernel("rope", `${entry}_from`, constants),
      frequencies: Array.from({ length: vectors * 4 }, (_, i) => {
        const frequency = base ** (-2 * i / headSize);
        return scaling ? scaled(frequency, scaling) : frequency;
      }),
    };
    plans.set(key, plan);
  }
  return plan;
}

const scalingKeys = ["factor", "lowFrequencyFactor", "highFrequencyFactor", "originalLength"] as const;

/** Llama 3's rule: how often a pair turns over the original length says how far it is slowed down. */
function scaled(frequency: number, scaling: RopeScaling): number {
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalLength } = scaling;
  const turns = originalLength * frequency / (2 * Math.PI);
  const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
  return frequency * (kept + (1 - kept) / factor);
}
