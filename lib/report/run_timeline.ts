/** A step as it ran, for drawings. */
import { UserError } from "../errors.ts";
import type { Mode } from "../gpu/devices.ts";
import type { Interval } from "../gpu/timing.ts";
import { replayCosts, type Transfer as TransferTime } from "../measure/costs.ts";
import type { SumTime } from "../runtime/replica_sums.ts";
import { type Clocks, clocksOf, onFirstClock } from "../runtime/clocks.ts";
import type { StepResult } from "../runtime/step.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { simulate, type Span, type SumSpan } from "../schedules/price/simulate.ts";
import { lower } from "../schedules/program.ts";
import { type Timeline, transfersOf } from "./timeline.ts";

/**
 * The times of a step that ran, in milliseconds from its first action; undefined where a device has no timestamps.
 *
 * On virtual devices the measured actions are composed as `simulate()` does. On real ones each device has a clock of its own: a
 * gradient cannot be used before it is made, so every transfer bounds how far two clocks are apart, those of activations from
 * one side and those of gradients from the other. Clocks within the bounds are taken as one; others are set to the middle, as
 * NTP does (RFC 5905, section 8), so that a drawing can be off by half the round trip of a message. Clocks that were compared, by
 * `readClocks` and `clocksBetween` of `twobp/runtime`, are taken as those found them, drift included; then the timeline says how
 * wrong that may be, and the order of a message's two ends within that is not mended.
 *
 * Of several replicas it is the first, on real devices with its sums over all: each behind the action that it waited for, as long as the
 * host has seen it take.
 *
 * @example
 * ```ts
 * import { adamw, createModel, createPipeline, generate, openDevices, runTimeline, textSource, twoStage } from "twobp";
 * import { ganttText } from "twobp/report";
 *
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
 * const text = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
 * await pipeline.step(schedule, text.next(4)); // the first step compiles kernels
 * const timeline = runTimeline(schedule, set.mode, await pipeline.step(schedule, text.next(4)));
 * if (timeline) console.log(ganttText(schedule, timeline)); // milliseconds
 * pipeline.close();
 * set.close();
 * ```
 */
export function runTimeline(
  schedule: Schedule,
  mode: Mode,
  { intervals: all, optimizerAfter, sums = [], clocks }:
    & Pick<StepResult, "intervals" | "optimizerAfter" | "sums">
    & { readonly clocks?: Clocks },
  transfer?: TransferTime,
): Timeline | undefined {
  if (!all) return undefined;
  if (clocks && clocks.peers.length !== all.length) {
    throw new UserError(
      `runTimeline: the clocks are those of ${clocks.peers.length} devices, and the step is of ${all.length}`,
    );
  }
  const own = all.slice(0, schedule.actions.length);
  if (mode === "virtual") return { ...simulate(schedule, replayCosts(schedule, own, transfer, optimizerAfter)), mode };
  const intervals = clocks
    ? own.map((list, rank) =>
      list.map(({ start, end }): Interval => ({
        start: onFirstClock(clocks.peers[rank], start),
        end: onFirstClock(clocks.peers[rank], end),
      }))
    )
    : own;
  const spans = schedule.actions.flatMap((actions, rank) =>
    actions.map((action, index): Span => ({ rank, index, action, ...intervals[rank][index] }))
  );
  const offsets = clocks ? intervals.map(() => 0) : clockOffsets(schedule, spans);
  const start = spans.reduce((least, span) => Math.min(least, span.start + offsets[span.rank]), Infinity);
  const moved = spans.map((span) => ({ ...span, ...shift(span, offsets[span.rank] - start) }));
  // A rank's last pass may be its optimizer's, which is no action.
  const ends = intervals.map((list, rank) =>
    list.reduce((most, { end }) => Math.max(most, end), -Infinity) + offsets[rank] - start
  );
  return {
    mode,
    spans: moved,
    makespan: ends.reduce((most, end) => Math.max(most, end)),
    ...(sums.length > 0 ? { sums: sumsAfter(schedule, moved, sums) } : {}),
    ...(clocks ? { clocks: clocksOf(clocks.peers.slice(0, schedule.actions.length)) } : {}),
  };
}

/** The sums over replicas, which the host has timed, behind the actions that they waited for: the two clocks are not one. */
function sumsAfter(
  schedule: Schedule,
  spans: readonly Span[],
  sums: readonly (readonly SumTime[])[],
): SumSpan[] {
  return schedule.actions.flatMap((_, rank) =>
    (sums[rank] ?? []).map(({ stage, begin, end }) => {
      const last = spans.filter(({ action: { kind, stage: own } }) => own === stage && (kind === "W" || kind === "B"));
      const start = Math.max(...last.map((span) => span.end));
      return { rank, stage, start, end: start + end - begin };
    })
  );
}

const shift = ({ start, end }: Interval, by: number): Interval => ({ start: start + by, end: end + by });

/** What to add to each rank's times, rank 0's being the clock of all; ranks are joined to those they exchange with. */
function clockOffsets(schedule: Schedule, spans: readonly Span[]): number[] {
  const devices = schedule.actions.length;
  // least[a][b]: b's clock plus its offset is at least so much ahead of a's.
  const least = Array.from({ length: devices }, () => new Array<number>(devices).fill(-Infinity));
  for (const { from, to } of transfersOf(lower(schedule), spans)) {
    least[from.rank][to.rank] = Math.max(least[from.rank][to.rank], from.end - to.start);
  }
  const offsets = new Array<number>(devices).fill(NaN);
  offsets[0] = 0;
  for (let joined = 0; joined < devices; joined++) {
    for (let rank = 0; rank < devices; rank++) {
      if (!Number.isNaN(offsets[rank])) continue;
      const known = offsets.findIndex((offset, other) =>
        !Number.isNaN(offset) && (least[other][rank] > -Infinity || least[rank][other] > -Infinity)
      );
      if (known >= 0) offsets[rank] = offsets[known] + between(least[known][rank], -least[rank][known]);
    }
  }
  return offsets.map((offset) => Number.isNaN(offset) ? 0 : offset);
}

/** 0 where the bounds allow it, else their middle, or the only one there is. */
function between(low: number, high: number): number {
  if (low <= 0 && high >= 0) return 0;
  if (low === -Infinity) return high;
  return high === Infinity ? low : (low + high) / 2;
}
