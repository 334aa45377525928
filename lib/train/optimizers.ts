/**
 * Optimizers over the flat parameters of a stage. An {@link OptimizerSpec} says which one, with which settings; what it
 * creates for a stage holds that stage's moments. The arithmetic is PyTorch's `SGD` and `AdamW`, and that of the paper
 * on Lion.
 */
import { made } from "../recipes.ts";
import { kernel } from "../gpu/kernel.ts";
import type { ParameterValues } from "../gpu/parameters.ts";
import { fill, strides } from "../ops/elementwise.ts";
import { expectShape, inVectors } from "../ops/shapes.ts";
import { singleOperation } from "../ops/variants.ts";
import { matchRule } from "../matching.ts";
import {
  anything,
  expectFields,
  expectValue,
  having,
  listOf,
  optional,
  real,
  type Rule,
  type Rules,
} from "../rules.ts";
import { empty, release, sizeOf, type Tensor, writeArray } from "../tensor.ts";
import type { Grouped, Matching } from "./optimizer_groups.ts";

/** An optimizer of one stage. */
export interface Optimizer {
  /** Its step size where none is given for a step, 0 or more. */
  readonly learningRate: number;
  /**
   * Begins an update: writes what changes from step to step to the device, which submits what is recorded there.
   * `learningRate`, finite and 0 or more, is for this step alone; by default {@link Optimizer.learningRate}. The gradients are those of the loss
   * times `lossScale`, 1 by default.
   */
  prepare(learningRate?: number, lossScale?: number): void;
  /** Records the update of the parameters by the gradients, and sets the gradients to zero. Call `prepare` before. */
  step(): void;
  /** Counts the update, which has been submitted. One that was prepared and recorded only has not happened. */
  commit(): void;
  /** Gives the moments' memory back. */
  release(): void;
  /** What it remembers from update to update, to be saved and to go on from. What has none cannot be saved. */
  readonly memory?: OptimizerMemory;
}

/** What an optimizer of a stage remembers from update to update. */
export interface OptimizerMemory {
  /** What it keeps of each parameter. */
  readonly moments: readonly Moment[];
  /** How many updates it has counted. */
  readonly updates: number;
  /** Goes on as after so many updates, once other moments have been written. */
  resume(updates: number): void;
}

/** A number for each element of a stretch of the parameters. */
export interface Moment {
  /** As PyTorch's optimizers name it, "exp_avg". */
  readonly name: string;
  /** The parameters' element that it starts at. */
  readonly start: number;
  /** The numbers, flat, f32. */
  readonly values: Tensor;
}

/** The settings of an optimizer by name, as plain JSON: what a checkpoint is compared with. */
export type OptimizerSettings = Readonly<Record<string, string | number | readonly number[]>>;

/** Which optimizer, with which settings. */
export interface OptimizerSpec extends Grouped<OptimizerSpec> {
  /** Short name. */
  readonly name: "sgd" | "adamw" | "lion" | "muon";
  /** The step size, 0 or more, of what is in no group; a step may be told a multiple of it, see `StepOptions.rate`. */
  readonly learningRate: number;
  /** Values kept for each parameter from step to step: the optimizer's memory, in multiples of the parameters'. */
  readonly moments: 0 | 1 | 2;
  /** What it was made with, of parameters in no group, by name: a checkpoint of other settings is refused. */
  readonly settings?: OptimizerSettings;
  /**
   * An optimizer for a stage: parameters and gradients, flat and equally long, f32. Weight decay holds for the first
   * `decayed` elements (matrices), not for the rest (gains, biases). In mixed precision `copy`, as long and f16, is given
   * the parameters' new values in the same pass. `shapes` are those of the parameters, in the order of their places; between them is
   * padding, which is 0.
   */
  create(
    parameters: Tensor,
    gradients: Tensor,
    decayed: number,
    copy?: Tensor,
    shapes?: readonly PlacedShape[],
  ): Optimizer;
}

/** Where a parameter stands among those of its stage, for optimizers that ask. */
export interface PlacedShape {
  /** Its first element. */
  readonly start: number;
  /** Its axes, outermost first. */
  readonly shape: readonly number[];
}

/** What takes an optimizer asks for this. */
export const optimizerRule: Rule = { ...having("create"), right: "an OptimizerSpec, as sgd() and adamw() return" };

/** Settings of {@link sgd}. */
export interface SgdOptions {
  /** Step size, 0 or more. */
  readonly learningRate: number;
  /** 0 or more, and below 1; 0 by default. From 1 on the sum of past gradients would never fade. */
  readonly momentum?: number;
  /** Parameters with a rate of their own, by name; the first that matches holds. None by default. */
  readonly groups?: readonly SgdGroup[];
}

/** Parameters that {@link sgd} treats in their own way. */
export interface SgdGroup extends Matching {
  /** Step size, 0 or more; by default that of all. */
  readonly learningRate?: number;
}

/** Settings of {@link adamw}; the defaults are PyTorch's. */
export interface AdamWOptions {
  /** Step size, 0 or more; 0.001 by default. */
  readonly learningRate?: number;
  /** Decay rates of the moments, each 0 or more, and below 1; [0.9, 0.999] by default. */
  readonly betas?: readonly [number, number];
  /**
   * Above 0; 1e-8 by default. PyTorch takes 0 too: then a parameter whose gradients have all been 0 (a token that has not
   * occurred) becomes 0 / 0.
   */
  readonly epsilon?: number;
  /** Of matrices, 0 or more; 0.01 by default. Gains and biases do not decay. */
  readonly weightDecay?: number;
  /** Parameters with settings of their own, by name; the first that matches holds. None by default. */
  readonly groups?: readonly AdamWGroup[];
}

/** Parameters that {@link adamw} treats in their own way. */
export interface AdamWGroup extends Matching {
  /** Step size, 0 or more; by default that of all. */
  readonly learningRate?: number;
  /** 0 or more; holds for all parameters of the group, gains and biases too. By default that of all, for matrices. */
  readonly weightDecay?: number;
}

/** Settings of {@link lion}; the defaults are those of the paper's own code. */
export interface LionOptions {
  /** Step size, 0 or more; 0.0001 by default. Every element moves by it in every step: a third to a tenth of AdamW's. */
  readonly learningRate?: number;
  /** Weights of the past in the direction and in what is kept of it, each 0 or more, and below 1; [0.9, 0.99] by default. */
  readonly betas?: readonly [number, number];
  /** Of matrices, 0 or more; 0 by default. Gains and biases do not decay. */
  readonly weightDecay?: number;
  /** Parameters with settings of their own, by name; the first that matches holds. None by default. */
  readonly groups?: readonly LionGroup[];
}

/** Parameters that {@link lion} treats in their own way. */
export interface LionGroup extends Matching {
  /** Step size, 0 or more; by default that of all. */
  readonly learningRate?: number;
  /** 0 or more; holds for all parameters of the group, gains and biases too. By default that of all, for matrices. */
  readonly weightDecay?: number;
}

/** Parameters of the kernels that stay from step to step; an optimizer reads those that it needs. */
interface Settings extends ParameterValues {
  readonly decayed: number;
  readonly beta1: number;
  readonly rest1: number;
  readonly beta2: number;
  readonly rest2: number;
  readonly epsilon: number;
  readonly decay: number;
}
const noSettings = { beta1: 0, rest1: 0, beta2: 0, rest2: 0, epsilon: 0, decay: 0 };

/** One update of all parameters, with or without a copy of them. */
function update(name: string, entry: string, moments: number) {
  const plain = kernel("optimizers", entry), withCopy = kernel("optimizers", `${entry}_copy`);
  return singleOperation<
    [
      ...[parameters: Tensor, gradients: Tensor, moments: readonly Tensor[], copy: Tensor | undefined],
      ...[scalars: Tensor, settings: Settings],
    ]
  >({
    name,
    kernel: `optimizers:${entry}`,
    outputs: ([parameters, gradients, moments, copy]) => [parameters, gradients, ...moments, ...copy ? [copy] : []],
    bytes: ([parameters, , , copy]) => (4 + 2 * moments) * parameters.bytes + (copy?.bytes ?? 0),
    prepare([parameters, , moments]) {
      const ones = new Float32Array(sizeOf(parameters.shape)).fill(1);
      for (const moment of moments) writeArray(moment, ones); // no squares are negative
    },
    record(parameters, gradients, moments, copy, scalars, settings) {
      const { device } = parameters;
      const vectors = Math.ceil(sizeOf(parameters.shape) / 4);
      const written = [...moments, ...copy ? [copy] : []].map(inVectors);
      const views = [inVectors(parameters), inVectors(gradients), scalars, ...written];
      device.dispatch(copy ? withCopy : plain, { count: vectors, ...settings }, views, strides(device, vectors));
    },
  });
}
const updates = {
  sgd: update("sgd", "sgd", 0),
  momentum: update("sgdMomentum", "sgd_momentum", 1),
  adamw: update("adamw", "adamw", 2),
  lion: update("lion", "lion", 1),
};

const rate = real({ least: 0 }), share = real({ least: 0, below: 1 });

/** The groups of an optimizer, each with a spec of its settings; nothing where there are none. */
function groupsOf<Group extends Matching>(
  owner: string,
  groups: readonly Group[] | undefined,
  rules: Rules<Group>,
  specOf: (group: Group) => OptimizerSpec,
): Pick<OptimizerSpec, "groups"> {
  if (groups === undefined) return {};
  expectValue(`${owner}: groups`, groups, { right: "a list of groups", accepts: Array.isArray });
  return {
    groups: groups.map((group, index) => {
      expectFields(`${owner}: groups[${index}]`, group, rules);
      return { match: group.match, spec: specOf(group) };
    }),
  };
}

/**
 * Stochastic gradient descent: `v = momentum * v + g; p -= learningRate * v`. It decays no weights.
 *
 * @throws {UserError} On an option out of its range, or an unknown one. A group that no parameter of the model is in is refused by the
 * pipeline.
 */
export function sgd(options: SgdOptions): OptimizerSpec {
  expectFields("sgd", options, { learningRate: rate, momentum: optional(share), groups: anything });
  const { learningRate, momentum = 0, groups } = options;
  const groupRules = { match: matchRule, learningRate: optional(rate) };
  return made("sgd", [options], {
    ...sgdOf(learningRate, momentum),
    ...groupsOf("sgd", groups, groupRules, (group) => sgdOf(group.learningRate ?? learningRate, momentum)),
  });
}

function sgdOf(learningRate: number, momentum: number): OptimizerSpec {
  const moments = momentum === 0 ? 0 : 1;
  return {
    name: "sgd",
    learningRate,
    moments,
    settings: { learningRate, momentum },
    create: (parameters, gradients, decayed, copy) =>
      optimizer("sgd", { parameters, gradients, decayed, copy }, {
        update: moments ? updates.momentum : updates.sgd,
        moments: moments ? ["momentum_buffer"] : [],
        learningRate,
        settings: { beta1: momentum },
        scalars: (_, rate) => [rate, 0, 0],
      }),
  };
}

/**
 * Adam with decoupled weight decay (Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2):
 * `p -= rate * (weightDecay * p + m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon))`.
 *
 * ```ts
 * import { adamw } from "twobp";
 *
 * const optimizer = adamw({
 *   learningRate: 1e-3,
 *   weightDecay: 0.1,
 *   groups: [{ match: /embedding/, weightDecay: 0 }, { match: (name) => name.startsWith("head."), learningRate: 1e-4 }],
 * });
 * console.log(optimizer.groups?.length); // 2
 * ```
 *
 * @throws {UserError} On an option out of its range, or an unknown one. A group that no parameter of the model is in is refused by the
 * pipeline.
 */
export function adamw(options: AdamWOptions = {}): OptimizerSpec {
  expectFields("adamw", options, {
    learningRate: optional(rate),
    betas: optional(listOf(share, 2)),
    epsilon: optional(real({ least: "above 0" })),
    weightDecay: optional(rate),
    groups: anything,
  });
  const { groups, ...all } = options;
  const groupRules = { match: matchRule, learningRate: optional(rate), weightDecay: optional(rate) };
  return made("adamw", [options], {
    ...adamwOf(all),
    ...groupsOf(
      "adamw",
      groups,
      groupRules,
      ({ learningRate = all.learningRate, weightDecay }) =>
        weightDecay === undefined
          ? adamwOf({ ...all, learningRate })
          : adamwOf({ ...all, learningRate, weightDecay }, true),
    ),
  });
}

/** AdamW of these settings; `everywhere` gains and biases decay too. */
function adamwOf(options: Omit<AdamWOptions, "groups">, everywhere = false): OptimizerSpec {
  const { learningRate = 1e-3, betas: [beta1, beta2] = [0.9, 0.999], epsilon = 1e-8, weightDecay = 0.01 } = options;
  return {
    name: "adamw",
    learningRate,
    moments: 2,
    settings: { learningRate, betas: [beta1, beta2], epsilon, weightDecay, decays: everywhere ? "all" : "matrices" },
    create(parameters, gradients, matrices, copy) {
      const decayed = everywhere ? sizeOf(parameters.shape) : matrices;
      return optimizer("adamw", { parameters, gradients, decayed, copy }, {
        update: updates.adamw,
        moments: ["exp_avg", "exp_avg_sq"],
        learningRate,
        settings: { beta1, rest1: 1 - beta1, beta2, rest2: 1 - beta2, epsilon, decay: weightDecay },
        scalars: (t, rate) => [rate, rate / (1 - beta1 ** t), 1 / Math.sqrt(1 - beta2 ** t)],
      });
    },
  };
}

/**
 * Lion (Chen et al., arXiv 2302.06675, algorithm 2): `p -= rate * (sign(beta1 * m + (1 - beta1) * g) + weightDecay * p)`, then
 * `m = beta2 * m + (1 - beta2) * g`. It keeps one moment, half of what AdamW keeps.
 *
 * @throws {UserError} On an option out of its range, or an unknown one. A group that no parameter of the model is in is refused by the
 * pipeline.
 */
export function lion(options: LionOptions = {}): OptimizerSpec {
  expectFields("lion", options, {
    learningRate: optional(rate),
    betas: optional(listOf(share, 2)),
    weightDecay: optional(rate),
    groups: anything,
  });
  const { groups, ...all } = options;
  const groupRules = { match: matchRule, learningRate: optional(rate), weightDecay: optional(rate) };
  return made("lion", [options], {
    ...lionOf(all),
    ...groupsOf(
      "lion",
      groups,
      groupRules,
      ({ learningRate = all.learningRate, weightDecay }) =>
        weightDecay === undefined
          ? lionOf({ ...all, learningRate })
          : lionOf({ ...all, learningRate, weightDecay }, true),
    ),
  });
}

/** Lion of these settings; `everywhere` gains and biases decay too. */
function lionOf(options: Omit<LionOptions, "groups">, everywhere = false): OptimizerSpec {
  const { learningRate = 1e-4, betas: [beta1, beta2] = [0.9, 0.99], weightDecay = 0 } = options;
  return {
    name: "lion",
    learningRate,
    moments: 1,
    settings: { learningRate, betas: [beta1, beta2], weightDecay, decays: everywhere ? "all" : "matrices" },
    create(parameters, gradients, matrices, copy) {
      const decayed = everywhere ? sizeOf(parameters.shape) : matrices;
      return optimizer("lion", { parameters, gradients, decayed, copy }, {
        update: updates.lion,
        moments: ["exp_avg"],
        learningRate,
        settings: { beta1, rest1: 1 - beta1, beta2, rest2: 1 - beta2, decay: weightDecay },
        scalars: (_, rate) => [rate, 0, 0],
      });
    },
  };
}

/** What an optimizer works on. */
interface Operands {
  parameters: Tensor;
  gradients: Tensor;
  decayed: number;
  copy: Tensor | undefined;
}

interface Plan {
  update: typeof updates.sgd;
  /** Their names. */
  moments: readonly string[];
  learningRate: number;
  settings: Partial<Settings>;
  /** Values of step `t`, counted from 1. */
  scalars(t: number, rate: number): [number, number, number];
}

function optimizer(name: string, { parameters, gradients, decayed, copy }: Operands, plan: Plan): Optimizer {
  const count = sizeOf(parameters.shape);
  if (sizeOf(gradients.shape) !== count || !(decayed >= 0 && decayed <= count)) {
    throw new Error(
      `${name}: gradients [${gradients.shape}] and ${decayed} decayed elements do not fit parameters [${parameters.shape}]`,
    );
  }
  if (copy) expectShape(name, "the copy", copy, parameters.shape, "float");
  const device = parameters.device;
  const moments = plan.moments.map(() => empty(device, [count], "optimizer"));
  for (const moment of moments) fill(moment, 0);
  const scalars = empty(device, [4], "optimizer");
  const settings = { ...noSettings, ...plan.settings, decayed };
  let done = 0;
  /** What the device has in `scalars` for sure: what the last update was made with. */
  let known: readonly number[] = [];
  let written: readonly number[] = [];
  return {
    learningRate: plan.learningRate,
    prepare(learningRate = plan.learningRate, lossScale = 1) {
      if (learningRate !== plan.learningRate) expectValue(`${name}: the learning rate of a step`, learningRate, rate);
      written = [...plan.scalars(done + 1, learningRate), 1 / lossScale];
      // Plain SGD at a constant rate writes once: a write submits what is recorded.
      if (written.some((value, i) => value !== known[i])) device.write(scalars, Float32Array.from(written));
      known = [];
    },
    step() {
      plan.update.run([parameters, gradients, moments, copy, scalars, settings]);
    },
    commit() {
      done++;
      known = written;
    },
    release() {
      release(scalars, ...moments);
    },
    memory: {
      moments: plan.moments.map((name, index) => ({ name, start: 0, values: moments[index] })),
      get updates() {
        return done;
      },
      resume(updates) {
        done = updates;
      },
    },
  };
}
