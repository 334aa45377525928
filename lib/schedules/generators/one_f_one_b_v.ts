import type { Schedule } from "../schedule.ts";
import { type Choice, type Moment, momentByMoment } from "./moment_by_moment.ts";
import { vPlacement } from "./placement.ts";

/** A forward or a backward of a rank, and when its building block has it. */
interface Timed {
  readonly time: number;
  readonly kind: "F" | "B";
  readonly stage: number;
  readonly microbatch: number;
}

/**
 * 1F1B on a V (Qi et al., "Pipeline Parallelism with Controllable Memory", arXiv 2405.15362): a building block with whole backwards,
 * repeated every 6 units, the work of one micro-batch on a rank. The block is that of the authors' published scheduler, and forwards
 * run before their time in it where the peak does not grow by it. The peak is two thirds of 1F1B's, on all ranks about alike; the
 * bubble is at most 1F1B's.
 */
export function oneFOneBV(devices: number, microbatches: number): Schedule {
  const blocks = blocksOf(devices);
  const lists = blocks.map((block) =>
    Array.from(
      { length: microbatches },
      (_, microbatch) => block.map((each): Timed => ({ ...each, time: each.time + 6 * microbatch, microbatch })),
    )
      .flat().sort((a, b) => a.time - b.time)
  );
  const most = peak1F1BV(devices);
  const first = lists.map(() => 0), held = lists.map(() => 0);
  const isOver = lists.map((list) => new Uint8Array(list.length));
  const choose = (rank: number, { isReady }: Moment): Choice => {
    const list = lists[rank], over = isOver[rank];
    while (over[first[rank]]) first[rank]++;
    // What runs before its turn is held beside all that is held until its turn.
    let after = held[rank], highest = after;
    const late = new Set<number>();
    for (let at = first[rank]; at < list.length; at++) {
      if (over[at]) continue;
      const { kind, stage, microbatch } = list[at], more = kind === "F" ? 1 : -1;
      const mayRun = at === first[rank] || (kind === "F" && highest < most);
      if (mayRun && isReady(kind, stage, microbatch)) {
        over[at] = 1;
        held[rank] += more;
        return list[at];
      }
      if (kind === "F" && late.add(stage).size === 2) return undefined; // the later ones of both stages are not ready either
      after += more;
      highest = Math.max(highest, after);
      if (highest >= most) return undefined;
    }
  };
  return momentByMoment("1f1b-v", vPlacement(devices), microbatches, choose);
}

/** The most activations, of a micro-batch on one of its two stages, that a rank holds. */
export const peak1F1BV = (devices: number): number => 2 * (Math.floor(2 * devices / 3) + 1);

/** By rank what it does of the first micro-batch, and when. */
function blocksOf(devices: number): Timed[][] {
  const stages = 2 * devices, microbatch = 0;
  const blocks = Array.from({ length: devices }, (_, rank): Timed[] => [
    { time: rank, kind: "F", stage: rank, microbatch },
    { time: stages - 1 - rank, kind: "F", stage: stages - 1 - rank, microbatch },
  ]);
  // Three backwards fill the 6 units: a fourth in a row would meet the first of the next micro-batch where the two share a rank.
  let time = stages + (devices % 3 === 0 ? 3 : 0), row = (3 - (devices + 2) % 3) % 3;
  for (let stage = stages - 1; stage >= 0; stage--) {
    blocks[Math.min(stage, stages - 1 - stage)].push({ time, kind: "B", stage, microbatch });
    row = (row + 1) % 3;
    time += row === 0 ? 5 : 2;
  }
  return blocks;
}
