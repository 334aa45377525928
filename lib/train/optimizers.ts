/**
 * Optimizers over the flat parameters of a stage. An {@link OptimizerSpec} says which one, with which settings; what it
 * creates for a stage holds that stage's moments. The arithmetic is PyTorch's `SGD` and `AdamW`.
 */
import { floatBits } from "../gpu/gpu.ts";
import { kernel } from "../gpu/kernel.ts";
import { fill, strides } from "../ops/elementwise.ts";
import { inVectors } from "../ops/shapes.ts";
import { empty, release, sizeOf, type Tensor } from "../tensor.ts";

/** An optimizer of one stage. */
export interface Optimizer {
  /**
   * Begins an update: writes what changes from step to step to the device, which submits what is recorded there.
   * `learningRate` is for this step alone; by default the spec's.
   */
  prepare(learningRate?: number): void;
  /** Records the update of the parameters by the gradients, and sets the gradients to zero. Call `prepare` before. */
  step(): void;
  /** Gives the moments' memory back. */
  release(): void;
}

/** Which optimizer, with which settings. */
export interface OptimizerSpec {
  /** Short name. */
  readonly name: "sgd" | "adamw";
  /** Values kept for each parameter from step to step: the optimizer's memory, in multiples of the parameters'. */
  readonly moments: 0 | 1 | 2;
  /**
   * An optimizer for a stage: parameters and gradients, flat and equally long. Weight decay holds for the first
   * `decayed` elements (matrices), not for the rest (gains, biases).
   */
  create(parameters: Tensor, gradients: Tensor, decayed: number): Optimizer;
}

/** Settings of {@link sgd}. */
export interface SgdOptions {
  /** Step size. */
  readonly learningRate: number;
  /** 0 by default. */
  readonly momentum?: number;
}

/** Settings of {@link adamw}; the defaults are PyTorch's. */
export interface AdamWOptions {
  /** 0.001 by default. */
  readonly learningRate?: number;
  /** Decay rates of the moments, [0.9, 0.999] by default. */
  readonly betas?: readonly [number, number];
  /** 1e-8 by default. */
  readonly epsilon?: number;
  /** 0.01 by default. */
  readonly weightDecay?: number;
}

const kernels = {
  sgd: kernel("optimizers", "sgd"),
  momentum: kernel("optimizers", "sgd_momentum"),
  adamw: kernel("optimizers", "adamw"),
};

/** Stochastic gradient descent: `v = momentum * v + g; p -= learningRate * v`. It decays no weights. */
export function sgd({ learningRate, momentum = 0 }: SgdOptions): OptimizerSpec {
  const moments = momentum === 0 ? 0 : 1;
  return {
    name: "sgd",
    moments,
    create: (parameters, gradients, decayed) =>
      optimizer("sgd", parameters, gradients, decayed, {
        kernel: moments ? kernels.momentum : kernels.sgd,
        moments,
        settings: [momentum],
        scalars: (_, rate = learningRate) => [rate, 0, 0],
      }),
  };
}

/**
 * Adam with decoupled weight decay (Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2):
 * `p -= rate * (weightDecay * p + m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon))`.
 */
export function adamw(options: AdamWOptions = {}): OptimizerSpec {
  const { learningRate = 1e-3, betas: [beta1, beta2] = [0.9, 0.999], epsilon = 1e-8, weightDecay = 0.01 } = options;
  return {
    name: "adamw",
    moments: 2,
    create: (parameters, gradients, decayed) =>
      optimizer("adamw", parameters, gradients, decayed, {
        kernel: kernels.adamw,
        moments: 2,
        settings: [beta1, 1 - beta1, beta2, 1 - beta2, epsilon, weightDecay],
        scalars: (t, rate = learningRate) => [rate, rate / (1 - beta1 ** t), 1 / Math.sqrt(1 - beta2 ** t)],
      }),
  };
}

interface Plan {
  kernel: typeof kernels.sgd;
  moments: number;
  /** Settings that stay, for the uniform block. */
  settings: number[];
  /** Values of step `t`, counted from 1. */
  scalars(t: number, rate: number | undefined): [number, number, number];
}

function optimizer(name: string, parameters: Tensor, gradients: Tensor, decayed: number, plan: Plan): Optimizer {
  const count = sizeOf(parameters.shape);
  if (sizeOf(gradients.shape) !== count || !(decayed >= 0 && decayed <= count)) {
    throw new Error(
      `${name}: gradients [${gradients.shape}] and ${decayed} decayed elements do not fit parameters [${parameters.shape}]`,
    );
  }
  const device = parameters.device;
  const moments = Array.from({ length: plan.moments }, () => empty(device, [count], "optimizer"));
  for (const moment of moments) fill(moment, 0);
  const scalars = empty(device, [3], "optimizer");
  const vectors = Math.ceil(count / 4);
  const words = [vectors, decayed, ...Array.from({ length: 6 }, (_, i) => floatBits(plan.settings[i] ?? 0))];
  const views = [inVectors(parameters), inVectors(gradients), scalars, ...moments.map(inVectors)];
  let t = 0;
  let written: readonly number[] = [];
  return {
    prepare(learningRate) {
      const values = plan.scalars(++t, learningRate);
      // Plain SGD at a constant rate writes once: a write submits what is recorded.
      if (values.some((value, i) => value !== written[i])) device.write(scalars, Float32Array.from(values));
      written = values;
    },
    step() {
      device.dispatch(plan.kernel, words, views, strides(device, vectors));
    },
    release() {
      release(scalars, ...moments);
    },
  };
}
