/** Schedules by a rule of what a free rank does next, instead of a rule for the whole list. */
import { type Action, actionMaker, type Schedule } from "../schedule.ts";

/** What a rule can ask: times are in units of a forward, a backward takes two. */
export interface Moment {
  /** Now. */
  readonly time: number;
  /** Whether a stage could run that of a micro-batch now, as far as messages and its own forward go. */
  isReady(kind: "F" | "B", stage: number, microbatch: number): boolean;
}

/** What a free rank does now; undefined to wait. */
export type Choice = { readonly kind: "F" | "B"; readonly stage: number; readonly microbatch: number } | undefined;

/** Lets every free rank choose, moment by moment, until all has run. What is chosen must be ready. */
export function momentByMoment(
  name: string,
  placement: readonly number[],
  microbatches: number,
  choose: (rank: number, moment: Moment) => Choice,
): Schedule {
  const stages = placement.length, devices = Math.max(...placement) + 1, make = actionMaker(microbatches);
  const actions = Array.from({ length: devices }, (): Action[] => []);
  const freeAt = new Array<number>(devices).fill(0);
  const ends = { F: new Float64Array(stages * microbatches), B: new Float64Array(stages * microbatches) };
  ends.F.fill(Infinity);
  ends.B.fill(Infinity);
  let time = 0;
  const hasEnded = (kind: "F" | "B", stage: number, microbatch: number) =>
    ends[kind][stage * microbatches + microbatch] <= time;
  const isReady = (kind: "F" | "B", stage: number, microbatch: number) => {
    if (kind === "F") return stage === 0 || hasEnded("F", stage - 1, microbatch);
    return hasEnded("F", stage, microbatch) && (stage === stages - 1 || hasEnded("B", stage + 1, microbatch));
  };
  for (let left = 2 * stages * microbatches; left > 0; time++) {
    for (let rank = 0; rank < devices; rank++) {
      if (freeAt[rank] > time) continue;
      const choice = choose(rank, { time, isReady });
      if (!choice) continue;
      const { kind, stage, microbatch } = choice;
      freeAt[rank] = time + (kind === "F" ? 1 : 2);
      ends[kind][stage * microbatches + microbatch] = freeAt[rank];
      actions[rank].push(make(kind, stage, microbatch));
      left--;
    }
  }
  return { name, placement, actions };
}
