/**
 * Operations that can be computed in several ways, and which way a GPU is given.
 *
 * An operation lists its candidates, the plain reference first, and a rule that picks one without having measured. What
 * `calibrate()` has measured on a GPU ({@link setChoices}) goes before the rule, for the class of problems it was
 * measured on. Nothing is measured or read from disk unasked: without a call to it every run takes the rule.
 *
 * To make an operation out of a function: put its arguments into an object (the problem; its tensors may sit anywhere in
 * it), and run it after checking them.
 *
 * ```ts
 * const operation = defineOperation<Problem>({
 *   name: "transpose",
 *   candidates: [
 *     { name: "plain", supports: () => true, record: ({ out, x }) => { ... } },
 *     { name: "tiles", supports: (info, { x }) => widthOf(x) % 4 === 0, record: ... },
 *   ],
 *   classOf: ({ x }) => `${roughly(rowsOf(x), widthOf(x))} ${x.dtype}`,
 *   rule: (info) => info.software ? "plain" : ["tiles", "plain"],
 *   outputs: ({ out }) => [out],
 * });
 * export function transpose(out, x) { check(...); operation.run({ out, x }); }
 * ```
 *
 * One with a single kernel, or whose candidates are the row variants, is shorter: `singleOperation`, `rowOperation` in
 * variants.ts. With a problem in `measure/standard_problems.ts` it appears in `deno task bench kernels`; calibration checks every
 * candidate against the first one and times it on copies of the problems that a model's step has.
 */
import type { Gpu, GpuInfo } from "../gpu/gpu.ts";
import type { Tensor } from "../tensor.ts";

/** One way to compute an operation. */
export interface Candidate<P> {
  /** Unique in the operation; for a single kernel `file:entry` in `kernels/`. */
  readonly name: string;
  /** Whether it computes this problem correctly on such a device. Says nothing about speed. */
  supports(info: GpuInfo, problem: P): boolean;
  /** Whether measuring it would be a waste of time: a kernel that takes seconds to compile where it cannot win. */
  hopeless?(info: GpuInfo, problem: P): boolean;
  /** Records it on the device of the problem's tensors. */
  record(problem: P): void;
}

/** What an operation is made of. */
export interface OperationSpec<P> {
  /** Unique among all operations: the name of the function that runs it. */
  readonly name: string;
  /** Every way to compute it. The first is the reference: it supports every problem, and the others are checked against it. */
  readonly candidates: readonly Candidate<P>[];
  /**
   * Problems for which the same candidate is fastest have the same class: sizes by {@link roughly}, and whatever else
   * decides (element types, transposes). Shown in tables.
   */
  classOf(problem: P): string;
  /**
   * The name of the candidate for a device that nothing was measured on, or several, the preferred first. Where none of them supports
   * the problem, the first candidate that does is taken. What it says of drivers stands in `usual.ts`.
   */
  rule(info: GpuInfo, problem: P): string | readonly string[];
  /** The tensors that are written; all others of the problem are only read. At least one. */
  outputs(problem: P): readonly Tensor[];
  /** Floating-point operations, for operations that arithmetic limits; the others are rated by the bytes of their tensors. */
  flops?(problem: P): number;
  /** Bytes read and written where that is not once for each tensor. */
  bytes?(problem: P): number;
  /** Overwrites those inputs of a copy of a problem that random numbers do not suit: indices, lengths, statistics. */
  prepare?(problem: P): void;
}

/** An operation that chooses among its candidates. */
export interface Operation<P> extends OperationSpec<P> {
  /** The candidate of a device that nothing was measured on: by the rule, or else the first that supports the problem. */
  usual(info: GpuInfo, problem: P): Candidate<P>;
  /** The candidate that {@link Operation.run} would take on this GPU. */
  choose(gpu: Gpu, problem: P): Candidate<P>;
  /** Records the problem by the chosen candidate. The arguments have been checked. */
  run(problem: P): void;
  /** Tells {@link observeProblems} of a problem, for operations that are recorded in parts and not by {@link Operation.run}. */
  observe(problem: P): void;
}

/** Measured choices: by operation and class the name of a candidate. */
export type Choices = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** An operation on problems of a kind of its own. */
// deno-lint-ignore no-explicit-any -- operations on all kinds of problems in one list
export type AnyOperation = Operation<any>;

const registry = new Map<string, AnyOperation>();

/** What holds on one GPU. */
interface InForce {
  /** By operation and class the candidate that was measured to be the fastest. */
  measured?: ReadonlyMap<AnyOperation, ReadonlyMap<string, unknown>>;
  /** Names of each {@link withCandidate} and {@link withCandidates} that is under way, the latest first. */
  forced: readonly (readonly string[])[];
  /** Of {@link observeProblems}. */
  observer?: (operation: AnyOperation, problem: unknown) => void;
}

const inForce = new WeakMap<Gpu, InForce>();

function inForceOn(gpu: Gpu): InForce {
  let found = inForce.get(gpu);
  if (!found) inForce.set(gpu, found = { forced: [] });
  return found;
}

/** Makes an operation and lists it in {@link operations}. */
export function defineOperation<P>(spec: OperationSpec<P>): Operation<P> {
  const { candidates, classOf, rule } = spec;
  const named = new Map(candidates.map((each) => [each.name, each]));
  const chosen = ({ forced, measured }: InForce, info: GpuInfo, problem: P): Candidate<P> => {
    for (const names of forced) {
      for (const name of names) {
        const wanted = named.get(name);
        if (wanted?.supports(info, problem)) return wanted;
      }
    }
    const best = measured?.get(operation)?.get(classOf(problem)) as Candidate<P> | undefined;
    if (best?.supports(info, problem)) return best; // a class is rough: not all of its problems need to be supported
    return operation.usual(info, problem);
  };
  const operation: Operation<P> = {
    ...spec,
    usual(info, problem) {
      const names = [rule(info, problem)].flat();
      const wanted = names.map((name) => named.get(name)).find((each) => each?.supports(info, problem));
      return wanted ?? candidates.find((each) => each.supports(info, problem))!;
    },
    choose(gpu, problem) {
      return chosen(inForceOn(gpu), gpu.info, problem);
    },
    run(problem) {
      const { gpu } = spec.outputs(problem)[0].device, there = inForceOn(gpu);
      chosen(there, gpu.info, problem).record(problem);
      there.observer?.(operation, problem);
    },
    observe(problem) {
      inForceOn(spec.outputs(problem)[0].device.gpu).observer?.(operation, problem);
    },
  };
  if (registry.has(spec.name)) throw new Error(`There are two operations "${spec.name}"`);
  registry.set(spec.name, operation);
  return operation;
}

/** All operations that have been loaded. */
export function operations(): readonly AnyOperation[] {
  return [...registry.values()];
}

/** From now on `gpu` takes these candidates; names that no longer exist are passed over. */
export function setChoices(gpu: Gpu, choices: Choices): void {
  const table = new Map<AnyOperation, Map<string, unknown>>();
  for (const [name, classes] of Object.entries(choices)) {
    const operation = registry.get(name);
    if (!operation) continue;
    const known = Object.entries(classes).map(([key, wanted]) =>
      [key, operation.candidates.find((each) => each.name === wanted)] as const
    );
    table.set(operation, new Map(known.filter(([, candidate]) => candidate)));
  }
  inForceOn(gpu).measured = table;
}

/**
 * Records on `gpu` with the candidates of this name wherever they can serve, whatever would be chosen: for tests and benchmarks.
 * Calls may lie in one another, each for other operations. Other GPUs take no notice.
 */
export function withCandidate(gpu: Gpu, name: string, record: () => void): void {
  const end = force(gpu, [name]);
  try {
    record();
  } finally {
    end();
  }
}

/**
 * The same for work that takes its time, the steps of a pipeline for example, on all its GPUs: until it has ended everything
 * that is recorded there takes candidates of these names, an earlier name before a later one.
 */
export async function withCandidates<Result>(
  gpus: Iterable<Gpu>,
  names: readonly string[],
  work: () => Promise<Result>,
): Promise<Result> {
  const ends = [...new Set(gpus)].map((gpu) => force(gpu, names));
  try {
    return await work();
  } finally {
    for (const end of ends) end();
  }
}

/** Forces candidates from now on; what it returns ends that, whatever else has been forced meanwhile. */
function force(gpu: Gpu, names: readonly string[]): () => void {
  const there = inForceOn(gpu), own = [...names];
  there.forced = [own, ...there.forced];
  return () => {
    there.forced = there.forced.filter((each) => each !== own);
  };
}

/** A problem that an operation was run on. */
export interface Observed {
  /** The operation. */
  readonly operation: AnyOperation;
  /** What it was given: its tensors may be gone, their shapes are not. */
  readonly problem: object;
}

/**
 * The problems that operations are run on on `gpu` while `work` lasts, one of each class in the order of their first
 * appearance; those that another operation is composed of come before it. One observer at a time sees them, the latest.
 */
export async function observeProblems(gpu: Gpu, work: () => unknown): Promise<Observed[]> {
  const seen = new Map<string, Observed>(), there = inForceOn(gpu), before = there.observer;
  there.observer = (operation, problem) => {
    const key = `${operation.name} ${operation.classOf(problem)}`;
    if (!seen.has(key)) seen.set(key, { operation, problem: problem as object });
  };
  try {
    await work();
  } finally {
    there.observer = before;
  }
  return [...seen.values()];
}

/** Sizes rounded to powers of two, "64x1024": within a factor of 1.4 the same kernel is best. */
export function roughly(...sizes: readonly number[]): string {
  return sizes.map((size) => size < 2 ? size : 2 ** Math.round(Math.log2(size))).join("x");
}
