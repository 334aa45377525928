/** The candidates of an operation on one problem: which of them are right, and how long they take. */
import type { Device } from "../gpu/device.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { Candidate, Observed } from "../ops/choice.ts";
import { copyProblem, type ProblemCopy } from "./problem_copy.ts";
import { type Patience, race, type Times } from "./stopwatch.ts";

/** What was found out about a candidate. */
export interface CandidateResult {
  /** Its name. */
  readonly name: string;
  /** Its times; none where it was dropped. */
  readonly times?: Times;
  /** Why it was dropped: an error, or the deviation from the reference. */
  readonly dropped?: string;
}

/** A problem with all its candidates. */
export interface ProblemResult {
  /** Name of the operation. */
  readonly operation: string;
  /** Class of the problem. */
  readonly problemClass: string;
  /** All that support the problem on this device, the reference first. */
  readonly candidates: readonly CandidateResult[];
  /** What the device would take without having measured. */
  readonly usual: string;
  /** The fastest of those that are right; what the device would take anyway where nothing is clearly faster. */
  readonly best: string;
  /** Floating-point operations of the problem, 0 for operations that are rated by their bytes. */
  readonly flops: number;
  /** Bytes that have to be read and written. */
  readonly bytes: number;
  /** Element types of the results, "f16" or "f32". */
  readonly dtype: string;
}

/** A candidate must take this share of the usual one's time at most: more is as likely noise. */
const clearly = 0.95;

/** Largest deviation from the reference, against the largest number of a result: sums may be taken in any order. */
const tolerance = { f16: 4e-3, f32: 2e-4, u32: 0 };

/** Which candidates of a problem are right. */
export interface Checked {
  /** The reference, and those that agree with it. */
  readonly right: readonly Candidate<unknown>[];
  /** Why each of the others is not. */
  readonly dropped: ReadonlyMap<string, string>;
  /** What the reference gives. */
  readonly expected: readonly ArrayLike<number>[];
}

/** The candidates that support a problem on a device, the reference first; the hopeless ones only if `all` are wanted. */
export function candidatesFor(
  { info }: Gpu,
  { operation, problem }: Observed,
  all = false,
): readonly Candidate<unknown>[] {
  return operation.candidates.filter((each: Candidate<unknown>) =>
    each.supports(info, problem) && (all || !each.hopeless?.(info, problem))
  );
}

/**
 * Runs each of `supported`, the reference first, once on `copy`, whose tensors are on `device`, and compares the others with the
 * reference. Throws where the reference itself fails.
 */
export async function checkCandidates(
  device: Device,
  observed: Observed,
  copy: ProblemCopy,
  supported: readonly Candidate<unknown>[],
): Promise<Checked> {
  const [reference, ...others] = supported;
  const expected = await resultsOf(device, reference, copy);
  const right = [reference];
  const dropped = new Map<string, string>();
  for (const candidate of others) {
    try {
      const wrong = deviation(await resultsOf(device, candidate, copy), expected, copy, observed);
      if (wrong) dropped.set(candidate.name, wrong);
      else right.push(candidate);
    } catch (error) {
      device.abandon();
      dropped.set(candidate.name, (error as Error).message.split("\n")[0]);
    }
  }
  return { right, dropped, expected };
}

/**
 * Checks and times every candidate of a problem on copies of its tensors on `device`; the hopeless ones only if `all` are
 * wanted. Throws where the reference itself fails.
 */
export async function measureCandidates(
  device: Device,
  observed: Observed,
  { all = false, ...patience }: Patience & { readonly all?: boolean } = {},
): Promise<ProblemResult> {
  const { operation } = observed;
  const copy = copyProblem(device, observed);
  try {
    const { gpu } = device;
    const { problem } = copy;
    const supported = candidatesFor(gpu, { operation, problem }, all);
    const { right, dropped } = await checkCandidates(device, observed, copy, supported);
    const usual = operation.usual(gpu.info, problem).name;
    const favourite = right.findIndex(({ name }) => name === usual);
    const times = await race(device, right.map((candidate) => () => candidate.record(problem)), patience, favourite);
    const timesOf = new Map(right.map(({ name }, index) => [name, times[index]]));
    const best = fastest(timesOf, usual);
    return {
      operation: operation.name,
      problemClass: operation.classOf(problem),
      candidates: supported.map(({ name }) => ({
        name,
        ...(timesOf.has(name) ? { times: timesOf.get(name)! } : {}),
        ...(dropped.has(name) ? { dropped: dropped.get(name)! } : {}),
      })),
      usual,
      best,
      flops: operation.flops?.(problem) ?? 0,
      bytes: operation.bytes?.(problem) ?? copy.bytes,
      dtype: operation.outputs(problem)[0].dtype,
    };
  } finally {
    copy.release();
  }
}

/**
 * The candidate with the shortest round, since a busy machine only ever adds time. The usual one stays unless another is
 * clearly faster by the shortest round and by the middle one.
 */
function fastest(timesOf: ReadonlyMap<string, Times>, usual: string): string {
  const [[name, best]] = [...timesOf].sort(([, a], [, b]) => a.min - b.min);
  const known = timesOf.get(usual);
  const clear = !known || (best.min < clearly * known.min && best.median < clearly * known.median);
  return clear ? name : usual;
}

async function resultsOf(
  device: Device,
  candidate: Candidate<unknown>,
  copy: ProblemCopy,
): Promise<ArrayLike<number>[]> {
  copy.reset();
  candidate.record(copy.problem);
  await device.idle(); // throws what the device reported
  return await copy.results();
}

/** What is wrong with the results, if anything. */
function deviation(
  actual: readonly ArrayLike<number>[],
  expected: readonly ArrayLike<number>[],
  { problem }: ProblemCopy,
  { operation }: Observed,
): string | undefined {
  const outputs = operation.outputs(problem);
  for (const [index, values] of expected.entries()) {
    let largest = 1e-30, worst = 0;
    for (let i = 0; i < values.length; i++) {
      if (Number.isNaN(actual[index][i]) !== Number.isNaN(values[i])) return "wrong: not a number";
      if (Number.isNaN(values[i])) continue;
      largest = Math.max(largest, Math.abs(values[i]));
      worst = Math.max(worst, Math.abs(actual[index][i] - values[i]));
    }
    if (!(worst <= tolerance[outputs[index].dtype] * largest)) {
      return `wrong by ${worst.toPrecision(2)} where results reach ${largest.toPrecision(2)}`;
    }
  }
  return undefined;
}
