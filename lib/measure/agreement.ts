/** How well virtual devices stand for real ones: both measured in turn, round by round, in one run. */
import { median, quantile } from "./statistics.ts";
import type { Measurement, ThroughputReport } from "./throughput.ts";

/** A ratio of what was measured in the same rounds. */
export interface RatioOfRounds {
  /** Median over the rounds. */
  readonly ratio: number;
  /** Lower and upper quartile. */
  readonly spread: readonly [number, number];
}

/** One schedule on virtual and on real devices. */
export interface AgreementRow {
  /** Name of the schedule. */
  readonly schedule: string;
  /** Composed step time over wall-clock step time, [without 2BP, with 2BP]. */
  readonly step: readonly [RatioOfRounds, RatioOfRounds];
  /** Gain of virtual devices over gain of real ones. */
  readonly gain: RatioOfRounds;
  /**
   * How much longer F and B take on real devices, which all run at once, than on virtual ones: 1 on GPUs, more where devices
   * share memory bandwidth or cores. Virtual devices know nothing of it. NaN where the real ones have no timestamps.
   */
  readonly contention: number;
}

/** An agreement run. */
export interface AgreementReport {
  /** Version of this form. */
  readonly schema: 1;
  /** Number of ranks. */
  readonly devices: number;
  /** One for each pair of schedules. */
  readonly rows: readonly AgreementRow[];
  /** The runs themselves. */
  readonly real: ThroughputReport;
  /** The runs themselves. */
  readonly virtual: ThroughputReport;
}

/** Takes `rounds` counted rounds of each in turn, the one first in one round and the other in the next. */
export async function measureAgreement(
  real: Measurement,
  virtual: Measurement,
  rounds: number,
): Promise<AgreementReport> {
  const ratios: number[][][] = []; // by schedule: [step without, step with, gain] of each round
  for (let round = 0; round <= rounds; round++) {
    const first = round % 2 ? virtual : real;
    const one = await first.round();
    const other = await (first === real ? virtual : real).round();
    if (round === 0) continue;
    const [clock, composed] = first === real ? [one, other] : [other, one];
    clock.forEach(([without, split], index) => {
      const [virtualWithout, virtualSplit] = composed[index];
      (ratios[index] ??= []).push([
        virtualWithout / without,
        virtualSplit / split,
        virtualWithout / virtualSplit / (without / split),
      ]);
    });
  }
  const [realReport, virtualReport] = [real.report(), virtual.report()];
  const summary = (list: readonly number[][], which: number): RatioOfRounds => {
    const values = list.map((each) => each[which]);
    return { ratio: median(values), spread: [quantile(values, 0.25), quantile(values, 0.75)] };
  };
  return {
    schema: 1,
    devices: realReport.devices,
    rows: realReport.gains.map(({ schedule }, index) => ({
      schedule,
      step: [summary(ratios[index], 0), summary(ratios[index], 1)],
      gain: summary(ratios[index], 2),
      contention: busyOf(realReport, schedule) / busyOf(virtualReport, schedule),
    })),
    real: realReport,
    virtual: virtualReport,
  };
}

/** Device time of F and B of one micro-batch through all stages. */
function busyOf({ costs }: ThroughputReport, schedule: string): number {
  return costs[schedule]?.stages.reduce((sum, { f, b }) => sum + f + b, 0) ?? NaN;
}
