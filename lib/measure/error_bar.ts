/** How far a prediction may be off: what predictions of its kind were off in the runs that `bench agreement` keeps. */
import type { Mode } from "../gpu/devices.ts";
import type { Precision } from "../runtime/pipeline.ts";
import { keptErrors } from "./kept_errors.ts";
import { driverOf, type KeptErrors } from "./prediction_errors.ts";

/**
 * What is predicted: a step time or a gain of 2BP, simulated from costs that were measured in the same run; or from counted
 * work a step time in those of plain 1F1B with as many micro-batches.
 */
export type PredictionOf = "step" | "gain" | "counted";

/** What a prediction is of. */
export interface PredictedOn {
  /** Real or virtual devices. */
  readonly mode: Mode;
  /** Number of devices. */
  readonly devices: number;
  /** What they are, as `DeviceSet.adapter` says. */
  readonly adapter: string;
  /** Copies of the pipeline; 1 by default. */
  readonly replicas?: number;
  /** What carries messages where ranks are in several processes; absent in one. */
  readonly transport?: string;
  /** What tensors hold; f32 by default. */
  readonly precision?: Precision;
}

/**
 * How far a prediction may be off, to either side and in its own unit: 95 of 100 kept predictions of its kind were off by no
 * larger share. Undefined where none are of its kind, and nothing is guessed then: for other drivers than the kept runs', so
 * for every GPU; for fewer or more devices of the mode than were measured (between two numbers the larger bar holds), for
 * replicas, several processes and mixed precision; and for NaN. Costs from elsewhere, a trace of PyTorch for example, have no bar either.
 * For `counted` no devices need be given: it is the largest bar of all that were measured.
 *
 * ```ts
 * import { errorBar } from "twobp/measure";
 *
 * const on = { mode: "real", devices: 2, adapter: "llvmpipe (LLVM 15.0.6)" } as const;
 * console.log(errorBar(1.18, "gain", on)! < 1.18, errorBar(1.18, "gain", { ...on, adapter: "NVIDIA H100" })); // true undefined
 * ```
 *
 * @param kept The table to take it from; by default the one in this package, written by `deno task bench agreement --keep`.
 */
export function errorBar(
  prediction: number,
  of: PredictionOf,
  on?: PredictedOn,
  kept: readonly KeptErrors[] = keptErrors,
): number | undefined {
  const within = on ? withinOf(kept, of, on) : of === "counted" ? largest(kept, of) : undefined;
  return within === undefined || Number.isNaN(prediction) ? undefined : Math.abs(prediction) * within;
}

/** The share for devices of that kind. */
function withinOf(kept: readonly KeptErrors[], of: PredictionOf, on: PredictedOn): number | undefined {
  const { mode, devices, adapter, replicas = 1, transport, precision = "f32" } = on;
  if (replicas !== 1 || transport !== undefined || precision !== "f32") return undefined;
  const alike = kept.filter((each) => each.mode === mode && each.driver === driverOf(adapter));
  const counts = alike.map((each) => each.devices);
  const [below, above] = [
    Math.max(...counts.filter((count) => count <= devices)),
    Math.min(...counts.filter((count) => count >= devices)),
  ];
  if (!Number.isFinite(below) || !Number.isFinite(above)) return undefined;
  return largest(alike.filter((each) => each.devices === below || each.devices === above), of);
}

function largest(kept: readonly KeptErrors[], of: PredictionOf): number | undefined {
  const shares = kept.flatMap((each) => each[of] ? [each[of].within] : []);
  return shares.length > 0 ? Math.max(...shares) : undefined;
}
