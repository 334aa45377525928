/** How well virtual devices stand for real ones: both measured in turn, round by round, in one run. */
import type { Interval } from "../gpu/timing.ts";
import { expectValue, positive } from "../rules.ts";
import { overlaps, withContention } from "../schedules/price/contention.ts";
import { simulate } from "../schedules/price/simulate.ts";
import { medianInterval } from "./bootstrap.ts";
import { kept, median, quartiles } from "./statistics.ts";
import type { ThroughputReport } from "./throughput_report.ts";
import type { Measurement, StepSample } from "./measurement.ts";

/** A ratio of what was measured in the same rounds. */
export interface RatioOfRounds {
  /** Median over the rounds. */
  readonly ratio: number;
  /** Lower and upper quartile. */
  readonly spread: readonly [number, number];
  /** 95 % confidence interval of the median, by {@link medianInterval} over the rounds; absent for fewer than 6. */
  readonly interval?: readonly [number, number];
  /** Each round's, in the order taken, to five digits; reports before this field have none. */
  readonly each?: readonly number[];
}

/** Virtual over real, round by round. */
export interface Agreement {
  /** Composed step time over wall-clock step time, [without 2BP, with 2BP]. */
  readonly step: readonly [RatioOfRounds, RatioOfRounds];
  /** Gain of virtual devices over gain of real ones. */
  readonly gain: RatioOfRounds;
}

/** One schedule on virtual and on real devices. */
export interface AgreementRow extends Agreement {
  /** Name of the schedule. */
  readonly schedule: string;
  /** The same if virtual devices knew nothing of {@link AgreementReport.contention}. */
  readonly uncontended: Agreement;
}

/** An agreement run. */
export interface AgreementReport {
  /** Version of this form. */
  readonly schema: 2;
  /** Number of ranks. */
  readonly devices: number;
  /** What carries messages between the real ranks, "mpi"; absent where all are in one process. */
  readonly transport?: string;
  /** Its library, with the version. */
  readonly library?: string;
  /**
   * How many times as long an action takes while all other devices are busy: 1 on GPUs of their own, more where devices share
   * memory bandwidth, or cores with the host. Measured by comparing the device times of real steps' actions with those of
   * virtual ones, whose devices take turns, and with how busy others were meanwhile. 1 where there are no timestamps.
   */
  readonly contention: number;
  /** One for each pair of schedules; virtual steps are composed under the contention. */
  readonly rows: readonly AgreementRow[];
  /** The runs themselves. */
  readonly real: ThroughputReport;
  /** The runs themselves, each device as if alone. */
  readonly virtual: ThroughputReport;
}

/** The same steps on real and on virtual devices. */
interface Twins {
  readonly real: readonly [StepSample, StepSample];
  readonly virtual: readonly [StepSample, StepSample];
}

/**
 * Takes `rounds` counted rounds of each in turn, the one first in one round and the other in the next; schedules of several
 * placements one placement after the other, since a ratio is of one schedule.
 *
 * Where the real ranks are in several processes, one of them has the virtual devices; the others call it without, and take their part in the
 * real rounds.
 *
 * @throws {UserError} When `rounds` is no whole number of 1 or more.
 */
export function measureAgreement(real: Measurement, virtual: Measurement, rounds: number): Promise<AgreementReport>;
/** The same for processes of which one has the virtual devices: the others give none, and get no report. */
export function measureAgreement(
  real: Measurement,
  virtual: Measurement | undefined,
  rounds: number,
): Promise<AgreementReport | undefined>;
export async function measureAgreement(
  real: Measurement,
  virtual: Measurement | undefined,
  rounds: number,
): Promise<AgreementReport | undefined> {
  expectValue("measureAgreement: rounds", rounds, positive);
  const taken: Twins[][] = []; // by pair of schedules
  try {
    for (let placement = 0; placement < real.placements; placement++) {
      await real.open(placement);
      await virtual?.open(placement);
      for (let round = 1; round <= rounds; round++) {
        if (!virtual) {
          await real.round();
          continue;
        }
        const first = round % 2 ? virtual : real;
        const one = await first.round();
        const other = await (first === real ? virtual : real).round();
        const [clock, composed] = first === real ? [one, other] : [other, one];
        clock.forEach(({ pair, steps }, at) => (taken[pair] ??= []).push({ real: steps, virtual: composed[at].steps }));
      }
      real.close();
      virtual?.close();
    }
  } finally {
    real.close();
    virtual?.close();
  }
  if (!virtual) return undefined;
  const contention = contentionOf(taken.flat());
  const [realReport, virtualReport] = [real.report(), virtual.report()];
  return {
    schema: 2,
    devices: realReport.devices,
    ...(realReport.library === undefined ? {} : { transport: realReport.transport, library: realReport.library }),
    contention,
    rows: realReport.gains.map(({ schedule }, index) => ({
      schedule,
      ...agreementOf(taken[index], contention),
      uncontended: agreementOf(taken[index], 1),
    })),
    real: realReport,
    virtual: virtualReport,
  };
}

/**
 * A device that loses the share s of its time to busy others takes d for what takes v alone: d = p v + s d o, where o is how
 * busy they are. p is near 1 and no contention: each real device keeps its own stage in its caches. Least squares over
 * all actions.
 */
function contentionOf(twins: readonly Twins[]): number {
  let vv = 0, vx = 0, xx = 0, vd = 0, xd = 0; // x: d o
  for (const { real, virtual } of twins) {
    for (const [which, { schedule, intervals, costs }] of real.entries()) {
      const alone = virtual[which].intervals;
      if (!intervals || !costs || !alone) return 1;
      const beside = overlaps(schedule, simulate(schedule, costs));
      for (const [rank, actions] of schedule.actions.entries()) {
        for (const index of actions.keys()) {
          const d = lengthOf(intervals[rank][index]), v = lengthOf(alone[rank][index]), x = d * beside[rank][index];
          vv += v * v;
          vx += v * x;
          xx += x * x;
          vd += v * d;
          xd += x * d;
        }
      }
    }
  }
  const determinant = vv * xx - vx * vx;
  const lost = determinant > 1e-9 * vv * xx ? (vv * xd - vx * vd) / determinant : 0;
  return 1 / (1 - Math.min(Math.max(0, lost), 0.9));
}

function agreementOf(twins: readonly Twins[], contention: number): Agreement {
  const steps = twins.map(({ real, virtual }) =>
    virtual.map(({ schedule, ms, costs }, which) => {
      const composed = costs ? simulate(schedule, withContention(schedule, costs, contention)).makespan : ms;
      return composed / real[which].ms;
    })
  );
  const summary = (values: readonly number[]): RatioOfRounds => {
    const interval = medianInterval(values);
    return {
      ratio: median(values),
      spread: quartiles(values),
      ...(interval ? { interval } : {}),
      each: kept(values),
    };
  };
  return {
    step: [summary(steps.map(([without]) => without)), summary(steps.map(([, split]) => split))],
    gain: summary(steps.map(([without, split]) => without / split)),
  };
}

const lengthOf = ({ start, end }: Interval) => end - start;
