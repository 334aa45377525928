/** Every candidate of every operation, compiled, run once, and compared with its reference. */
import type { Device } from "../../gpu/device.ts";
import type { Observed } from "../../ops/choice.ts";
import { firstLine } from "../../text.ts";
import { candidatesFor, checkCandidates } from "../candidates.ts";
import { copyProblem } from "../problem_copy.ts";
import type { KernelFault, KernelsCheck } from "./diagnosis.ts";

/** How to check. */
export interface KernelCheckOptions {
  /** Also candidates that cannot win on such a device and take long to compile. */
  readonly all?: boolean;
  /** Milliseconds after which no further kernel is compiled but those that a run takes; no limit by default. */
  readonly limitMs?: number;
  /** Called, and waited for, before each problem of each of the two rounds: how much is done, 0 to 1, and the operation. */
  readonly onProblem?: (share: number, operation: string) => void | Promise<void>;
}

/**
 * Runs the candidates of the problems. Those that a run takes without calibration come first, with the references, and are always
 * run; the others follow as long as there is time. The first candidate of an operation is compared with no other: of it is
 * asked that it writes, and something else than zeros.
 */
export async function checkKernels(
  device: Device,
  problems: readonly Observed[],
  { all = false, limitMs = Infinity, onProblem = () => {} }: KernelCheckOptions = {},
): Promise<KernelsCheck> {
  const start = performance.now();
  const faults: KernelFault[] = [];
  let checked = 0, left = 0, done = 0;
  const broken = new Set<Observed>();
  for (const round of ["usual", "others"] as const) {
    for (const observed of problems) {
      const supported = candidatesFor(device.gpu, observed, all);
      const usual = observed.operation.usual(device.gpu.info, observed.problem).name;
      const others = supported.slice(1).filter(({ name }) => (name === usual) === (round === "usual"));
      await onProblem(done++ / (2 * problems.length), observed.operation.name);
      if (round === "others" && (others.length === 0 || broken.has(observed))) continue; // nothing to compare with
      const { lost } = device.gpu;
      if (lost !== undefined && !faults.some(({ problem }) => problem.includes(lost))) {
        const fault = faultOf(observed, supported[0].name, supported[0].name, lost);
        faults.push({ ...fault, usual: fault.candidate === usual });
      }
      if (lost !== undefined || round === "others" && performance.now() - start > limitMs) {
        left += others.length + (round === "usual" ? 1 : 0);
        continue;
      }
      const found = await checkOne(device, observed, [supported[0], ...others], round === "usual");
      if (found.some(({ reference }) => reference)) broken.add(observed);
      faults.push(...found.map((fault) => ({ ...fault, usual: fault.candidate === usual })));
      checked += others.length + (round === "usual" ? 1 : 0);
    }
  }
  return { problems: problems.length, checked, left, faults, ms: performance.now() - start };
}

type Found = Omit<KernelFault, "usual">;

function faultOf({ operation, problem: of }: Observed, candidate: string, reference: string, problem: string): Found {
  return {
    ...{ operation: operation.name, problemClass: operation.classOf(of), dtype: operation.outputs(of)[0].dtype },
    ...{ candidate, reference: candidate === reference, problem },
  };
}

async function checkOne(
  device: Device,
  observed: Observed,
  candidates: ReturnType<typeof candidatesFor>,
  lookAtReference: boolean,
): Promise<Found[]> {
  const { operation, problem } = observed;
  const [{ name: reference }] = candidates;
  const fault = (candidate: string, problem: string) => faultOf(observed, candidate, reference, problem);
  let copy: ReturnType<typeof copyProblem> | undefined;
  try {
    copy = copyProblem(device, { operation, problem });
    const before = await copy.results();
    const { dropped, expected } = await checkCandidates(device, observed, copy, candidates);
    const idle = lookAtReference ? idleness(before, expected, copy.reads > 0) : undefined;
    return [...idle ? [fault(reference, idle)] : [], ...[...dropped].map(([name, why]) => fault(name, why))];
  } catch (error) {
    device.abandon();
    return [fault(reference, firstLine(error))];
  } finally {
    copy?.release();
  }
}

/** What shows that a kernel has done nothing; zeros are right where there is nothing that they were made of. */
function idleness(
  before: readonly ArrayLike<number>[],
  after: readonly ArrayLike<number>[],
  reads: boolean,
): string | undefined {
  const every = (is: (value: number, output: number, at: number) => boolean) =>
    after.every((values, output) => Array.from(values).every((value, at) => is(value, output, at)));
  if (every((value, output, at) => Object.is(value, before[output][at]))) return "wrong: nothing is written";
  return reads && every((value) => value === 0) ? "wrong: all results are 0" : undefined;
}
