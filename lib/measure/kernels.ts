/** Every candidate of every operation on a model's problems and a few standard ones: right or not, times, rates. */
import type { Device } from "../gpu/device.ts";
import type { Observed } from "../ops/choice.ts";
import { firstLine } from "../text.ts";
import { callback, expectFields, flag, optional, real } from "../rules.ts";
import { measureCandidates, type ProblemResult } from "./candidates.ts";
import { measurePeak, type Peak } from "./peak.ts";
import { type Patience, patienceRules } from "./stopwatch.ts";

/** A candidate on a problem. */
export interface KernelRow {
  /** Name of the operation. */
  readonly operation: string;
  /** Class of the problem: sizes rounded to powers of two, and what else decides. */
  readonly shape: string;
  /** Element type of the result. */
  readonly dtype: string;
  /** Name of the candidate. */
  readonly candidate: string;
  /** Whether it is the one that calibration gives the device. */
  readonly chosen: boolean;
  /** Whether it is the one that the device takes without calibration. */
  readonly usual: boolean;
  /** Milliseconds of one run, median of the rounds. */
  readonly ms: number;
  /** A quarter and three quarters of the rounds took less. */
  readonly quartiles: readonly [number, number];
  /** Milliseconds of one run in each round, to five digits: fewer where it was hopeless; reports before this field have none. */
  readonly times?: readonly number[];
  /** Work by time. */
  readonly rate: number;
  /** Of the rate: "GFLOP/s", or "GB/s" for operations that move more than they compute. */
  readonly unit: "GFLOP/s" | "GB/s";
  /** The rate by that of the probe kernels. More than 1 where data stay in caches, or matrix units help. */
  readonly shareOfPeak: number;
}

/** A candidate that was not timed. */
export interface DroppedRow extends Pick<KernelRow, "operation" | "shape" | "dtype" | "candidate"> {
  /** Why. */
  readonly reason: string;
}

/** A run of `deno task bench kernels`. */
export interface KernelsReport {
  /** Version of this form. */
  readonly schema: 1;
  /** What was measured on. */
  readonly adapter: string;
  /** What it does at best. */
  readonly peak: Peak;
  /** One for each problem and candidate. */
  readonly rows: readonly KernelRow[];
  /** Candidates that failed or were wrong. */
  readonly dropped: readonly DroppedRow[];
  /** Problems for which there was no time; absent where there are none. */
  readonly left?: number;
}

/** How to measure. */
export interface KernelsOptions extends Patience {
  /** Also candidates that cannot win on such a device and take long to compile. */
  readonly all?: boolean;
  /** Milliseconds after which no further problem is begun, the first excepted; default no end. */
  readonly ms?: number;
  /** Called after each problem. */
  readonly onProblem?: () => void;
}

/**
 * Measures every candidate of every problem, and the device's peak in the same run. Where the reference itself fails, as one does
 * that needs a larger buffer than the device allows, the problem is dropped with its reason; where the device is lost,
 * nothing more is measured.
 *
 * @throws {UserError} On an option out of its range, or an unknown one.
 */
export async function measureKernels(
  device: Device,
  problems: readonly Observed[],
  given: KernelsOptions = {},
): Promise<KernelsReport> {
  expectFields("measureKernels", given, {
    all: optional(flag),
    ms: optional(real({ least: "above 0" })),
    onProblem: optional(callback),
    ...patienceRules,
  });
  const { onProblem, ms: time = Infinity, ...options } = given;
  const end = performance.now() + time;
  const before = await measurePeak(device, options);
  const rows: KernelRow[] = [];
  const dropped: DroppedRow[] = [];
  let left = 0;
  for (const [at, observed] of problems.entries()) {
    if (at > 0 && performance.now() > end) {
      left = problems.length - at;
      break;
    }
    const found = await measured(device, observed, options);
    if ("reason" in found) {
      dropped.push(found);
      onProblem?.();
      if (device.gpu.lost === undefined) continue;
      left = problems.length - at - 1;
      break;
    }
    const { operation, problemClass: shape, dtype, best, usual, flops, bytes, candidates } = found;
    for (const { name: candidate, times, dropped: reason } of candidates) {
      if (!times) {
        dropped.push({ operation, shape, dtype, candidate, reason: reason ?? "" });
        continue;
      }
      const { median: ms, quartiles, each } = times;
      const rate = (flops || bytes) / ms / 1e6;
      rows.push({
        ...{ operation, shape, dtype, candidate, chosen: candidate === best, usual: candidate === usual },
        ...{ ms, quartiles, times: each, rate, unit: flops ? "GFLOP/s" : "GB/s" },
        shareOfPeak: 0, // of the better of two peaks, once the second is known
      });
    }
    onProblem?.();
  }
  const after = device.gpu.lost === undefined ? await measurePeak(device, options) : before;
  const peak = {
    gflops: Math.max(before.gflops, after.gflops),
    gigabytes: Math.max(before.gigabytes, after.gigabytes),
  };
  const shareOfPeak = ({ rate, unit }: KernelRow) => rate / (unit === "GFLOP/s" ? peak.gflops : peak.gigabytes);
  return {
    ...{ schema: 1, adapter: device.gpu.info.name, peak },
    rows: rows.map((row) => ({ ...row, shareOfPeak: shareOfPeak(row) })),
    dropped,
    ...left > 0 ? { left } : {},
  };
}

/** What the candidates of a problem take, or why it is not known: its reference fails. */
async function measured(
  device: Device,
  observed: Observed,
  options: Patience & { readonly all?: boolean },
): Promise<ProblemResult | DroppedRow> {
  try {
    return await measureCandidates(device, observed, options);
  } catch (error) {
    device.abandon();
    const { operation, problem } = observed;
    return {
      ...{ operation: operation.name, shape: operation.classOf(problem), dtype: operation.outputs(problem)[0].dtype },
      ...{ candidate: operation.candidates[0].name, reason: firstLine(error) },
    };
  }
}
