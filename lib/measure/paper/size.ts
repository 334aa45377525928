/** Which size of a model of the 2BP paper a device can measure: the largest that fits its memory and the time there is. */
import { formatBytes } from "../../bytes.ts";
import { UserError } from "../../errors.ts";
import { callback, expectFields, filled, type Rule, type Rules } from "../../rules.ts";
import { budgetRule } from "../../runtime/pipeline.ts";

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
  /** Estimated time of setting it up and trying it, in milliseconds, where it was not tried for lack of time. */
  readonly trialMs?: number;
  /** Milliseconds there were when it was looked at. */
  readonly leftMs: number;
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
  /** All that were looked at, the smallest first, up to the first that was not taken. */
  readonly tried: readonly SizeTrial[];
}

/** What a trial of one size gives. */
export interface Reached {
  /** Floating-point operations a second. */
  readonly rate: number;
  /** Time of the set-up, in milliseconds; it grows with the parameters. */
  readonly setUpMs: number;
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
  /** Counts a model's parameters, and the floating-point operations of all that is to be measured and of what {@link rate} runs. */
  work(model: string): Promise<{ readonly all: number; readonly probe: number; readonly parameters: number }>;
  /** Measures operations a second on the device, with a model, and how long its set-up takes; an error of the device rules it out. */
  rate(model: string): Promise<Reached>;
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

/** Share of the time that trying one more size may take; of one that is taken, none of it is lost. */
const trialShare = 0.5;
/** How many times as fast as one size the next may be, where the smaller one's products are too small for a GPU: beyond hope of that, it is not tried. */
const fastestClimb = 32;

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
  const end = performance.now() + ms;
  const tried: SizeTrial[] = [];
  /** What the size before reached; for the first one nothing is too slow to be tried. */
  let before = { rate: Infinity, setUpMsEach: 0 };
  for (const model of models.toReversed()) {
    const trial = await look(model);
    tried.push(trial);
    if (trial.reason) break;
  }
  const [first] = tried, next = models.at(-2);
  if (first.reason === "time" && next) tried.push({ ...await estimate(next), reason: "time" });
  const taken = tried.findLast(({ reason }) => !reason) ?? tried[0];
  if (taken.reason && taken.reason !== "time") {
    throw new UserError(
      `${taken.model}, the smallest of its kind, ` +
        (taken.reason === "memory"
          ? `takes ${formatBytes(taken.bytes)}, and there are ${formatBytes(bytes)}`
          : `does not run: ${taken.message}`),
    );
  }
  return { model: taken.model, ...(bytes < Infinity ? { bytes } : {}), tried };

  /** By the rate of the size before. */
  async function estimate(model: string) {
    const { all, probe, parameters } = await work(model);
    return {
      model,
      bytes: await need(model),
      leftMs: Math.max(0, end - performance.now()),
      ms: all / before.rate * 1000,
      trialMs: probe / before.rate * 1000 + before.setUpMsEach * parameters,
    };
  }

  async function look(model: string): Promise<SizeTrial> {
    const { ms, trialMs, ...trial } = await estimate(model);
    if (trial.bytes > bytes) return { ...trial, reason: "memory" };
    if (trialMs > trialShare * trial.leftMs || ms > fastestClimb * trial.leftMs) {
      return { ...trial, ms, trialMs, reason: "time" };
    }
    try {
      const { all, parameters } = await work(model);
      const { rate: reached, setUpMs } = await rate(model);
      before = { rate: reached, setUpMsEach: setUpMs / parameters };
      const takes = all / reached * 1000;
      const isLate = takes > end - performance.now();
      return { ...trial, rate: reached, ms: takes, ...(isLate ? { reason: "time" } : {}) };
    } catch (error) {
      if (!isOfDevice(error)) throw error;
      return { ...trial, reason: "device", message: (error as Error).message };
    }
  }
}
