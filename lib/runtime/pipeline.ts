/** A model cut into stages on several devices, ready to run schedules. */
import { UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { writeBuffer } from "../layers/buffers.ts";
import type { Layer } from "../layers/layer.ts";
import { isTrained } from "../layers/parameter.ts";
import { copyMasters } from "../layers/parameter_blocks.ts";
import { sequential } from "../layers/sequential.ts";
import { expectModel, type Model, parametersOf } from "../models/model.ts";
import type { StepEnd } from "../schedules/program.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { forwardOnly } from "../schedules/transforms/forward_only.ts";
import {
  anything,
  expectFields,
  expectValue,
  filled,
  flag,
  having,
  oneOf,
  optional,
  positive,
  type Rule,
  type Rules,
  u32,
} from "../rules.ts";
import { type Tensor, toArray, writeArray } from "../tensor.ts";
import type { Batch } from "../train/data.ts";
import { createLossScale } from "../train/loss_scale.ts";
import { checkGroups } from "../train/optimizer_groups.ts";
import { expectUntied } from "../train/muon.ts";
import { optimizerRule, type OptimizerSpec } from "../train/optimizers.ts";
import { type Context, expectUsable, lostGradients } from "./context.ts";
import { clearGradients } from "./finish.ts";
import { createOccupancy } from "./occupancy.ts";
import { checkParts, partition } from "./partition.ts";
import type { PlacedStage } from "./placed.ts";
import { createPrograms } from "./programs.ts";
import { placeRanks, releaseRank } from "./ranks.ts";
import { formatRecompute, type RecomputePolicy, withRecompute } from "./recompute.ts";
import { formatSums, sumsOf, type SumsPolicy } from "./sums.ts";
import { type EvaluateOptions, type EvaluationResult, runEvaluation } from "./evaluate.ts";
import { forwardOf, type GenerationOptions, type GenerationResult, runGeneration } from "./generate.ts";
import { runStep, type StepOptions, type StepResult } from "./step.ts";
import { endOf, tiesOf } from "./ties.ts";
import { type Call, unled } from "./orders.ts";
import { enterCompany, expectAlike, ofAllProcesses, standIns } from "./elsewhere.ts";
import type { Rank } from "./run.ts";
import { arraysFor, expectHalves } from "./values.ts";
import { joined, type OptimizerState, readStretches, resumeOptimizers, savedMoments } from "./optimizer_state.ts";
import { type World, worldOf } from "./world.ts";

/**
 * "f32" throughout, or "mixed" (Micikevicius et al., arXiv 1710.03740): activations, their gradients and the messages between
 * stages are f16, and kernels read an f16 copy of f32 master weights. Sums are still f32: gradients of
 * parameters, statistics of normalisations, losses, running statistics, the optimizer. The loss is scaled, and steps whose
 * gradients overflow are skipped, see {@link StepResult.skipped}.
 */
export type Precision = "f32" | "mixed";

/** All of them. */
export const precisions: readonly Precision[] = ["f32", "mixed"];

/** What takes a precision asks for this. */
export const precisionRule: Rule = oneOf(precisions);

/** What takes a budget asks for this. */
export const budgetRule: Rule = {
  right: "a number of bytes above 0",
  accepts: (value) => typeof value === "number" && value > 0,
};

/** How a pipeline is made. */
export interface PipelineOptions {
  /** Updates the parameters at the end of each step. */
  readonly optimizer: OptimizerSpec;
  /** Rank of each stage; by default one stage a rank, in order. */
  readonly placement?: readonly number[];
  /**
   * How many copies of the pipeline there are, each with a share of the batch; 1 by default. The devices are those of the first replica, rank
   * by rank, then those of the next: of N x R devices each replica has N. Replica r takes samples r S / R to (r + 1) S / R of a batch of S and
   * cuts them into the schedule's micro-batches. In a step with an update the gradients of each stage are added up over the
   * replicas as soon as its last W or B there has run, while other actions go on; all replicas then make the same update, that of the whole
   * batch. Running statistics become the mean over the replicas.
   */
  readonly replicas?: number;
  /**
   * Whether each replica keeps the optimizer's moments of a piece of each stage's parameters, updates that, and gives it to the others: ZeRO
   * stage 1 (Rajbhandari et al., arXiv 1910.02054). So the moments take 1/R of the memory; the update is the same, bit for bit where
   * gradients are not clipped, and else but for the rounding of their norm. Matrices
   * that Muon moves are pieces as a whole; parameters that are tied, and those that lie beside them, are updated by all. Not by default.
   */
  readonly shardOptimizer?: boolean;
  /** The layers of each stage; by default cut so that the heaviest stage is as light as it can be. */
  readonly parts?: readonly (readonly Layer[])[];
  /** Seed of the initial parameters; the same for every partition gives the same model. */
  readonly seed?: number;
  /** What tensors hold and kernels read; "f32" by default. */
  readonly precision?: Precision;
  /** What the loss is multiplied by at first in mixed precision, a power of two; 2^16 by default. */
  readonly lossScale?: number;
  /** What is recomputed instead of kept: bytes for time. Nothing by default. */
  readonly recompute?: RecomputePolicy;
  /**
   * Where a W is delayed, who makes those of its gradients that are sums over one micro-batch, as of the gain of a norm: "i", I, or
   * "w", W, of all stages or of each its own. "i" by default: it holds least and works least. With "w" every I is shorter, which
   * the other ranks wait for, and the step with it where there is idle time that takes what W has more to do: with few
   * micro-batches for many ranks. `plan` chooses by schedule and memory.
   */
  readonly sums?: SumsPolicy;
  /**
   * The most bytes that the buffers on each device may take, free ones that are kept for later included. What would exceed it
   * fails, with rank, action and bytes in the message; the devices are good for a smaller step afterwards.
   */
  readonly budget?: number;
}

const setRule: Rule = {
  right: "a DeviceSet, as openDevices() gives",
  accepts: (value) => having("close").accepts(value) && filled.accepts((value as DeviceSet).devices),
};

const rules: Rules<PipelineOptions> = {
  optimizer: optimizerRule,
  placement: anything, // by `checkParts`
  replicas: optional(positive),
  shardOptimizer: optional(flag),
  parts: anything,
  seed: optional(u32),
  precision: optional(precisionRule),
  lossScale: anything, // by `createLossScale`
  recompute: anything, // by `withRecompute`
  sums: anything, // by `sumsOf`
  budget: optional(budgetRule),
};

/**
 * A model in training. Any schedule for its number of devices and stages can be run on it, step by step. A step, a reading of
 * values and their setting exclude one another: what is called too early, or after `close`, is a `UserError`, and nothing is done.
 */
export interface Pipeline {
  /** What is trained. */
  readonly model: Model;
  /** The layers of each stage, wrapped where they recompute. */
  readonly parts: readonly (readonly Layer[])[];
  /** How many copies of the pipeline there are, each with a share of the batch. */
  readonly replicas: number;
  /** Whether each replica has a part of the optimizer, as {@link PipelineOptions.shardOptimizer} says. */
  readonly shardOptimizer: boolean;
  /** How its steps end, beyond what schedules say: which ranks add up gradients, and that all update their parameters, or none. */
  readonly end: StepEnd;
  /** What is recomputed, in a word for tables: "both:2", or by stage "both/none", or "by layer". */
  readonly recompute: string;
  /** Who makes the sums that only a delayed W reads, in a word for tables: "i", "w", or by stage "i/w". */
  readonly sums: string;
  /** What tensors hold and kernels read. */
  readonly precision: Precision;
  /** What updates its parameters. */
  readonly optimizer: OptimizerSpec;
  /**
   * Runs one step: forward, backward, and unless `optimize` is false the optimizer. One step at a time. A step that fails has
   * never happened: parameters, gradients, running statistics, the optimizer and the loss scale are what they were before. Only
   * gradients that earlier steps without an update had added up are lost with it.
   *
   * @throws {UserError} When schedule, batch and pipeline do not fit each other.
   * @throws {Error} When a rank fails, or the loss or a gradient is not finite (in mixed precision the latter is no error, see
   * {@link StepResult.skipped}); rank, and action or parameter are named.
   */
  step(schedule: Schedule, batch: Batch, options?: StepOptions): Promise<StepResult>;
  /**
   * Runs the forward passes of a schedule alone, and gives the loss, and the model's outputs where they are asked for. Nothing is
   * kept for a backward, no gradient is touched, so it may come between steps that add up theirs; dropout drops nothing, and batch
   * normalisation takes its running statistics and leaves them as they are. Of a schedule for training its backward passes are
   * left out, see `forwardOnly`; on dry devices it is a prediction of memory. Whatever happens, everything is as it was before.
   *
   * @throws {UserError} When schedule, batch and pipeline do not fit each other.
   * @throws {Error} When a rank fails, or the loss is not finite.
   */
  evaluate(schedule: Schedule, batch: Batch, options?: EvaluateOptions): Promise<EvaluationResult>;
  /**
   * Goes on with a sequence of tokens, one token at a time: the prompt goes through the stages in one pass, and each new token in one of its
   * own, since attention keeps keys and values, and Mamba its state. Dropout is off. The model must be of next tokens, and its layers take sequences piece by
   * piece (`Layer.pieces`), as those of LLaMa and Mamba do. The sequence ends where it is as long as those that the model takes; equal seeds and prompts give
   * equal tokens. Nothing else changes, and what was kept is given back at the end. For text see `generateText`.
   *
   * @throws {UserError} When the model cannot generate, or prompt and options do not fit it.
   * @throws {Error} When a rank fails, or logits are not finite; nothing has changed then.
   */
  generate(prompt: ArrayLike<number>, options?: GenerationOptions): Promise<GenerationResult>;
  /**
   * All gradients by parameter name, as they are now, of the loss itself; tied parameters have the sum of both, and frozen ones
   * are left out.
   */
  gradients(): Promise<Map<string, Float32Array>>;
  /** All parameter values by name; in mixed precision the f32 masters, and of frozen ones, which have none, what f16 holds of them. */
  parameters(): Promise<Map<string, Float32Array>>;
  /**
   * Gives every parameter new values, by name; of tied parameters the original's count for both, and the copy may be left out. With
   * `partial` others may be left out too, and keep what they have.
   *
   * @throws {UserError} When a name is missing or unknown, values are no Float32Array of the right size, or those of a frozen
   * parameter are too large for the f16 of mixed precision; nothing has changed then.
   */
  setParameters(values: ReadonlyMap<string, Float32Array>, options?: { readonly partial?: boolean }): void;
  /** Running statistics and other state of layers that no gradient trains, by name. */
  state(): Promise<Map<string, Float32Array>>;
  /**
   * Gives all such state new values, by name, which no failure of a later step takes back.
   *
   * @throws {UserError} When a name is missing or unknown, or values are no Float32Array of the right size; nothing has changed then.
   */
  setState(values: ReadonlyMap<string, Float32Array>): void;
  /**
   * All that further updates depend on besides parameters and state: what the optimizer keeps, how many updates it has made, and in
   * mixed precision the loss scale. Asked for together with `parameters()` and `state()`, before anything is waited for, they are of one moment.
   *
   * @throws {UserError} When gradients of steps without an update are there, which it does not have, or an optimizer of one's own has no `memory`.
   */
  optimizerState(): Promise<OptimizerState>;
  /**
   * Goes on with what {@link Pipeline.optimizerState} of a pipeline of the same model and optimizer has said, whatever its partition. Gradients
   * become zero.
   *
   * @throws {UserError} When a name is missing or unknown, values are no Float32Array of the right size, or one has a loss scale and the
   * other not; nothing has changed then.
   */
  setOptimizerState(state: OptimizerState): void;
  /** Axes of what `optimizerState()` has, by name, outermost first. */
  optimizerShapes(): Map<string, readonly number[]>;
  /** Sets all gradients to zero, as the optimizer does after each of its steps. */
  clearGradients(): void;
  /** Gives back everything the pipeline holds on its devices, which stay open. A second time it does nothing. */
  close(): void;
}

/**
 * Cuts a model into stages and places them.
 *
 * ```ts
 * import { adamw, createModel, createPipeline, generate, openDevices, textSource, twoStage } from "twobp";
 *
 * const set = await openDevices(2);
 * const model = createModel("llama-tiny");
 * const pipeline = createPipeline(set, model, { optimizer: adamw() });
 * const text = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
 * for (let i = 0; i < 3; i++) console.log((await pipeline.step(schedule, text.next(4))).loss);
 * pipeline.close();
 * set.close();
 * ```
 *
 * @throws {UserError} On what is no model or device set, an option out of its range or an unknown
 * one, mixed precision without 16-bit floats, and parameters and moments that exceed the budget or the device. Nothing is placed
 * then.
 */
export function createPipeline(set: DeviceSet, model: Model, options: PipelineOptions): Pipeline {
  expectValue("createPipeline: devices", set, setRule);
  return connectPipeline(set, model, options, worldOf(set));
}

/** As {@link createPipeline}, for devices of a world that is made otherwise. */
export function connectPipeline(set: DeviceSet, model: Model, options: PipelineOptions, world: World): Pipeline {
  expectModel("createPipeline", model);
  expectFields("createPipeline", options, rules);
  const orders = world.lead?.ordersOf(model, options) ?? unled;
  const { devices } = set, { replicas = 1 } = options;
  const size = sizeOfReplicas(world, replicas);
  if (options.shardOptimizer && replicas === 1) {
    throw new UserError("createPipeline: `shardOptimizer` is over replicas, and there is one: set `replicas`");
  }
  const given = options.placement ?? Array.from({ length: size }, (_, rank) => rank);
  const occupancy = createOccupancy(devices);
  const plain = options.parts ?? partition(model, Array.isArray(given) ? given : size); // what is no list is refused next
  checkParts(model, plain, given, size);
  const placement = [...given];
  const parts = withRecompute(plain, options.recompute), sums = sumsOf(options.sums, plain.length);
  const mixed = options.precision === "mixed";
  if (mixed) expectHalf(devices);
  if (!mixed && options.lossScale !== undefined) {
    throw new UserError('A loss scale is for precision "mixed": in f32 the loss is not scaled');
  }
  const lossScale = mixed ? createLossScale(options.lossScale) : undefined;
  const originals = new Map(model.tied?.map(([original, copy]) => [copy.name, original.name]));
  const originalsTrained = parametersOf(model).filter((each) => isTrained(each) && !originals.has(each.name));
  checkGroups(options.optimizer, originalsTrained.map(({ name }) => name));
  const tiedMatrices = (model.tied ?? []).flatMap(([original]) =>
    isTrained(original) && original.shape.length > 1 ? [original.name] : []
  );
  expectUntied(options.optimizer, tiedMatrices);
  const { budget } = options;
  /** The budget holds while something is placed or a step runs: other pipelines on these devices have their own. */
  const limit = (bytes: number | undefined) => devices.forEach(({ pool }) => pool.limitTo(bytes));
  limit(budget);
  const layers = parts.map((part) => sequential(part));
  const ties = tiesOf(model, layers, placement);
  const shared = replicas > 1 ? [...layers.keys()].filter((stage) => layers[stage].parameters.some(isTrained)) : [];
  const end = endOf(ties, shared);
  const place = (on: readonly Device[], of: World) =>
    placeRanks(on, { model, layers, sums, size, placement, ties }, { ...options, mixed, originals }, of);
  const ranks = place(devices, world), away = standIns(world, place);
  limit(undefined);
  const context: Context = {
    model,
    stages: layers,
    world,
    size,
    ranks,
    end,
    programOf: createPrograms(placement, size, end, undefined, replicas),
    forwardProgramOf: createPrograms(placement, size, {}, forwardOnly, replicas),
    forward: forwardOf(placement, size),
    learningRate: options.optimizer.learningRate,
    ...(lossScale ? { lossScale } : {}),
    condition: { gradients: "zero" },
  };
  const { condition } = context;
  // Of those that are here, in the order of their numbers; all replicas have the same values.
  const leading = ranks.filter(({ number }, at) => ranks.findIndex((each) => each.number === number) === at);
  const stages = layers.flatMap((_, stage) => {
    const rank = leading.find(({ number }) => number === placement[stage]);
    return rank ? [rank.stages.get(stage)!] : [];
  });
  const parametersIn = (stages: Iterable<PlacedStage>) =>
    [...stages].flatMap(({ layer, parameter }) =>
      layer.parameters.map((each) => ({ ...each, placed: parameter(each) }))
    );
  const buffersIn = (stages: Iterable<PlacedStage>) =>
    [...stages].flatMap(({ layer, state }) => (layer.buffers ?? []).map((each) => ({ ...each, ...state(each) })));
  const parameters = parametersIn(stages), buffers = buffersIn(stages);
  /** Those of all replicas, in the same order; of ranks that are elsewhere their stand-ins. */
  const everywhere = (all: readonly Rank[]) =>
    layers.flatMap((_, stage) => all.flatMap((rank) => rank.stages.get(stage) ?? []));
  const parameterNames = layers.flatMap((layer) => layer.parameters.map(({ name }) => name));
  const bufferNames = layers.flatMap((layer) => (layer.buffers ?? []).map(({ name }) => name));
  /** Readings take turns: processes that ask for several at once tell each other the same ones in the same order. */
  let turn: Promise<unknown> = Promise.resolve();
  const inTurn = <Result>(run: () => Promise<Result>): Promise<Result> => {
    const result = turn.then(run);
    turn = result.catch(() => {});
    return result;
  };
  /** What `own` reads here, with that of other processes: in the order of `names`, and added up where `isSum`. */
  const reading = async (
    call: Call,
    what: string,
    own: () => Promise<ReadonlyMap<string, Float32Array>>,
    names: readonly string[] = [],
    isSum = false,
  ) => {
    occupancy.expectOpen(what);
    expectUsable(context);
    return await occupancy.reading(() =>
      orders.call(call, [], () =>
        inTurn(async () => {
          await expectAlike(context, () => what);
          return await ofAllProcesses(context, await own(), names, isSum);
        }))
    );
  };
  const read = (
    call: "parameters" | "state",
    tensors: readonly (readonly [string, Tensor])[],
    names: readonly string[],
  ) =>
    reading(call, `its ${call}`, async () => {
      const values = new Map<string, Float32Array>();
      for (const [name, tensor] of tensors) values.set(name, await toArray(tensor));
      return values;
    }, names);
  const withinBudget = <Result>(run: () => Promise<Result>) =>
    occupancy.stepping(async () => {
      limit(budget);
      try {
        return await run();
      } finally {
        limit(undefined);
      }
    });
  const expectFree = (what: string) => {
    occupancy.expectFree(what);
    expectUsable(context);
  };
  const optimizerShapes = () => {
    const all = [...ranks, ...away()].sort((one, other) => one.peer - other.peer);
    return new Map(savedMoments(all, originals).moments.map(({ name, shape }) => [name, shape]));
  };
  const pipeline: Pipeline = {
    model,
    parts,
    replicas,
    shardOptimizer: options.shardOptimizer ?? false,
    end,
    recompute: formatRecompute(options.recompute),
    sums: formatSums(options.sums),
    precision: mixed ? "mixed" : "f32",
    optimizer: options.optimizer,
    async step(schedule, batch, stepOptions) {
      expectFree("another step");
      return await withinBudget(() =>
        orders.call("step", [schedule, batch, stepOptions] as const, (...given) => runStep(context, ...given))
      );
    },
    async evaluate(schedule, batch, evaluateOptions) {
      expectFree("an evaluation");
      return await withinBudget(() =>
        orders.call(
          "evaluate",
          [schedule, batch, evaluateOptions] as const,
          (...given) => runEvaluation(context, ...given),
        )
      );
    },
    async generate(prompt, generateOptions) {
      expectFree("a generation");
      return await withinBudget(() =>
        orders.generate(prompt, generateOptions, (...given) => runGeneration(context, ...given))
      );
    },
    async gradients() {
      occupancy.expectOpen("its gradients");
      if (condition.gradients === "lost") throw new UserError(lostGradients);
      const trained = parametersIn(everywhere(ranks)).filter(isTrained);
      const gradients = await reading(
        "gradients",
        "its gradients",
        async () => {
          const values = new Map<string, Float32Array>();
          for (const { name, placed } of trained) {
            const own = await toArray(placed.gradient), sum = values.get(name);
            if (sum) own.forEach((value, i) => sum[i] += value); // of another replica
            else values.set(name, own);
          }
          return values;
        },
        parameterNames,
        true,
      );
      const unscale = 1 / (lossScale?.value ?? 1);
      if (unscale !== 1) {
        for (const [name, values] of gradients) {
          gradients.set(
            name,
            values.map((g) => unscale * g),
          );
        }
      }
      for (const [a, b] of model.tied?.filter(([original]) => isTrained(original)) ?? []) {
        const sum = gradients.get(a.name)!.map((value, i) => value + gradients.get(b.name)![i]);
        gradients.set(a.name, sum).set(b.name, sum);
      }
      return gradients;
    },
    parameters: () => read("parameters", parameters.map(({ name, placed }) => [name, placed.master]), parameterNames),
    state: () => read("state", buffers.map(({ name, value }) => [name, value]), bufferNames),
    setParameters(values, { partial = false } = {}) {
      expectFree("new parameters");
      const all = parametersIn(everywhere([...ranks, ...away()]));
      const fresh = arraysFor("parameter", model.name, all, values, originals, partial);
      for (const [{ name, placed }, array] of fresh) if (placed.master.dtype === "f16") expectHalves(name, array);
      orders.expectTold(values);
      for (const [{ placed }, array] of fresh) writeArray(placed.master, array);
      for (const { blocks } of everywhere(ranks)) copyMasters(blocks);
      orders.set("setParameters", values, { partial });
    },
    setState(values) {
      expectFree("new state");
      const all = buffersIn(everywhere([...ranks, ...away()]));
      const fresh = arraysFor("state buffer", model.name, all, values);
      orders.expectTold(values);
      for (const [buffer, array] of fresh) writeBuffer(buffer, array);
      orders.set("setState", values);
    },
    async optimizerState() {
      if (condition.gradients === "summed") {
        throw new UserError(
          "The gradients of steps without an update are in no state of the optimizer: ask for it after the update, or call clearGradients()",
        );
      }
      const { updates, moments } = savedMoments(ranks, originals);
      const scale = lossScale ? { lossScale: { value: lossScale.value, good: lossScale.good } } : {};
      const stretches = await reading("optimizerState", "its optimizer's state", () => readStretches(moments));
      return { updates, values: joined(stretches, optimizerShapes()), ...scale };
    },
    optimizerShapes,
    setOptimizerState(state) {
      expectFree("another state of the optimizer");
      orders.expectTold(state);
      resumeOptimizers(model.name, [...ranks, ...away()], originals, lossScale, state);
      ranks.forEach(clearGradients);
      condition.gradients = "zero";
      orders.set("setOptimizerState", state);
    },
    clearGradients() {
      expectFree("other gradients");
      ranks.forEach(clearGradients);
      condition.gradients = "zero";
      orders.set("clearGradients");
    },
    close() {
      if (!occupancy.close()) return;
      ranks.forEach(releaseRank);
      orders.set("close");
    },
  };
  enterCompany(pipeline, world);
  orders.made();
  return pipeline;
}

/**
 * How many ranks each replica has.
 *
 * @throws {UserError} Where that is no whole number.
 */
function sizeOfReplicas({ size }: World, replicas: number): number {
  if (size % replicas === 0) return size / replicas;
  throw new UserError(
    `createPipeline: ${size} devices cannot be ${replicas} replicas of as many each; \`replicas\` must divide them`,
  );
}

function expectHalf(devices: readonly Device[]) {
  const lacking = devices.find(({ gpu }) => !gpu.info.f16);
  if (lacking) {
    const { rank, gpu } = lacking;
    throw new UserError(
      `Mixed precision needs 16-bit floats in shaders, which rank ${rank} (${gpu.info.name}) has not`,
    );
  }
}
