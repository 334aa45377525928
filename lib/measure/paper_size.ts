/** Which size of a model of the 2BP paper a device can measure: the largest that fits its memory and the time there is. */
import { formatBytes } from "../bytes.ts";
import { UserError } from "../errors.ts";
import { callback, expectFields, filled, type Rule, type Rules } from "../rules.ts";
import { budgetRule } from "../runtime/pipeline.ts";

/** What one size needs. */
export interface SizeTrial {
  /** Name of the model. */
  readonly model: string;
  /** Predicted peak in bytes, of all ranks where they share memory, else of the fullest. */
  readonly bytes: number;
  /** Floating-point operations a second that the device reached with it; absent where it was not tried. */
  readonly rate?: number;
  /**
   * Estimated time of all that is to be measured, in milliseconds: its operations over that rate, or where it was not tried over that
   * of the next smaller size, which is too long rather than too short; absent where memory already ruled it out.
   */
  readonly ms?: number;
  /** Why it was not taken; absent for those that would do. */
  readonly reason?: "memory" | "time" | "device";
  /** What the device said, where that is the reason. */
  readonly message?: string;
}

/** A size, and how it was found. */
export interface SizeChoice {
  /** Name of the model that was taken. */
  readonly model: string;
  /** Bytes there were; absent where nobody knows. */
  readonly bytes?: number;
  /** Milliseconds there were. */
  readonly ms: number;
  /** All that were looked at, the smallest first, up to the first that was not taken. */
  readonly tried: readonly SizeTrial[];
}

/** Sizes to choose from, and what tells whether one fits. */
export interface SizeOptions {
  /** Names of models, the largest first. */
  readonly models: readonly string[];
  /** Bytes there are; Infinity where nobody knows. */
  readonly bytes: number;
  /** Milliseconds that the measurement may take. */
  readonly ms: number;
  /** Predicts the bytes that a model takes, of the hungriest step. */
  need(model: string): Promise<number>;
  /** Counts the floating-point operations of all that is to be measured, and of the little that {@link SizeOptions.rate} runs. */
  work(model: string): Promise<{ readonly all: number; readonly probe: number }>;
  /** Measures operations a second on the device, with a model; what it throws rules the model out. */
  rate(model: string): Promise<number>;
  /** Whether an error is the device's: out of memory, for example. */
  isOfDevice(error: unknown): boolean;
}

const above0: Rule = { right: "a number above 0", accepts: (value) => typeof value === "number" && value > 0 };
const rules: Rules<SizeOptions> = {
  models: filled,
  bytes: budgetRule,
  ms: above0,
  need: callback,
  work: callback,
  rate: callback,
  isOfDevice: callback,
};

/** Share of the time that finding out about one more size may take. */
const probeShare = 0.2;

/**
 * The largest of the models whose predicted memory there is, and whose measurement takes no longer than there is time, by the rate that
 * the device reaches with it. Climbs from the smallest, since the rate of one size says whether it is worth trying the next: larger
 * products run at a higher rate, hardly at a lower one. The smallest is taken however long it takes.
 *
 * @throws {UserError} Where memory or device rule out the smallest, and on options that are none.
 */
export async function chooseSize(options: SizeOptions): Promise<SizeChoice> {
  expectFields("chooseSize", options, rules);
  const { models, bytes, ms, need, work, rate, isOfDevice } = options;
  const tried: SizeTrial[] = [];
  let known = Infinity;
  for (const model of models.toReversed()) {
    const trial = await look(model, known);
    tried.push(trial);
    if (trial.reason) break;
    known = trial.rate!;
  }
  const taken = tried.findLast(({ reason }) => !reason) ?? tried[0];
  if (taken.reason && taken.reason !== "time") {
    throw new UserError(
      taken.reason === "memory"
        ? `${taken.model}, the smallest of its kind, takes ${formatBytes(taken.bytes)}, and there are ${
          formatBytes(bytes)
        }`
        : `${taken.model}, the smallest of its kind, does not run: ${taken.message}`,
    );
  }
  return { model: taken.model, ...(bytes < Infinity ? { bytes } : {}), ms, tried };

  async function look(model: string, before: number): Promise<SizeTrial> {
    const needed = await need(model);
    const trial = { model, bytes: needed };
    if (needed > bytes) return { ...trial, reason: "memory" };
    const { all, probe } = await work(model);
    if (probe / before * 1000 > probeShare * ms) return { ...trial, ms: all / before * 1000, reason: "time" };
    try {
      const reached = await rate(model);
      const takes = all / reached * 1000;
      return { ...trial, rate: reached, ms: takes, ...(takes > ms ? { reason: "time" } : {}) };
    } catch (error) {
      if (!isOfDevice(error)) throw error;
      return { ...trial, reason: "device", message: (error as Error).message };
    }
  }
}
