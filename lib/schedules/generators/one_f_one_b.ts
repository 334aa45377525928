import { type Action, actionMaker, type Schedule } from "../schedule.ts";
import { linearPlacement } from "./placement.ts";

/**
 * 1F1B, one forward one backward (PipeDream-flush, arXiv 2006.09503): rank r runs N - r - 1 forwards, then alternates,
 * then drains, and so keeps at most N - r activations. `1f1b-1` and `1f1b-2` are the paper's names for M = N and M = 2N.
 *
 * @param warmup How many forwards rank r runs before it alternates, where it is not N - r - 1.
 */
export function oneFOneB(
  devices: number,
  microbatches: number,
  name = "1f1b",
  warmup: (rank: number) => number = (rank) => devices - rank - 1,
): Schedule {
  const make = actionMaker(microbatches);
  const actions = Array.from({ length: devices }, (_, rank) => {
    const ahead = Math.min(microbatches, warmup(rank));
    const list: Action[] = [];
    for (let m = 0; m < ahead; m++) list.push(make("F", rank, m));
    for (let m = 0; m < microbatches; m++) {
      if (m + ahead < microbatches) list.push(make("F", rank, m + ahead));
      list.push(make("B", rank, m));
    }
    return list;
  });
  return { name, placement: linearPlacement(devices), actions };
}
