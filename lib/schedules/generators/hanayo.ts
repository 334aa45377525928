import { UserError } from "../../errors.ts";
import type { Schedule } from "../schedule.ts";
import { type Choice, type Moment, momentByMoment } from "./moment_by_moment.ts";
import { zigzagPlacement } from "./placement.ts";

/**
 * Hanayo (Liu et al., SC'23, arXiv 2308.15762): stages go down the ranks and up again, `chunks / 2` times, and so do the
 * micro-batches, as waves. A rank prefers backwards, and of what is ready takes the oldest micro-batch. N micro-batches make a
 * round, as many as the paper has; the next round's forwards come in where the backwards of the one before have made room, so
 * that no rank ever holds more than one round.
 *
 * @throws {UserError} For an odd number of stages a rank.
 */
export function hanayo(devices: number, microbatches: number, chunks: number): Schedule {
  if (chunks % 2 !== 0) {
    throw new UserError(
      `hanayo has two stages a rank for each wave, an even number; got ${chunks}. ${chunks + 1} make ${
        chunks === 1 ? "1 wave" : `${(chunks + 1) / 2} waves`
      }`,
    );
  }
  const placement = zigzagPlacement(devices, chunks / 2), last = placement.length - 1;
  const own = Array.from({ length: devices }, (_, rank) => [...placement.keys()].filter((s) => placement[s] === rank));
  /** Of each stage the micro-batch that comes next. */
  const next = { F: placement.map(() => 0), B: placement.map(() => 0) };
  const held = new Array<number>(devices).fill(0);
  // Two micro-batches on their way meet only where they set out an odd number of stages apart, one going down and one going up.
  let forwardsFrom = 0, backwardsFrom = 0;

  /** Whether there is room for a forward beside what forwards of earlier rounds will hold. */
  const hasRoom = (rank: number, microbatch: number) => {
    const earlier = microbatch - microbatch % devices;
    const owed = own[rank].reduce((sum, stage) => sum + Math.max(0, earlier - next.F[stage]), 0);
    return held[rank] + owed < chunks * devices;
  };
  const take = (kind: "F" | "B", stage: number): Choice => ({ kind, stage, microbatch: next[kind][stage]++ });
  const choose = (rank: number, { time, isReady }: Moment): Choice => {
    // The stage nearest to the input has the oldest of the backwards, the stage nearest to the loss that of the forwards.
    for (const stage of own[rank]) {
      const microbatch = next.B[stage];
      if (microbatch === microbatches || !isReady("B", stage, microbatch)) continue;
      if (stage === last && time < backwardsFrom) continue;
      if (stage === last) backwardsFrom = time + 4;
      held[rank]--;
      return take("B", stage);
    }
    for (const stage of own[rank].toReversed()) {
      const microbatch = next.F[stage];
      if (microbatch === microbatches || !isReady("F", stage, microbatch)) continue;
      if ((stage === 0 && time < forwardsFrom) || !hasRoom(rank, microbatch)) continue;
      if (stage === 0) forwardsFrom = time + 2;
      held[rank]++;
      return take("F", stage);
    }
  };
  return momentByMoment("hanayo", placement, microbatches, choose);
}
