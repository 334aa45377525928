import { UserError } from "../../errors.ts";
import { type Action, actionMaker, type Schedule } from "../schedule.ts";
import { vPlacement } from "./placement.ts";

/**
 * DualPipeV: the half of DeepSeek-V3's bidirectional DualPipe (arXiv 2412.19437, section 3.2) that a V-shaped placement
 * leaves, with one copy of the parameters. Most backwards stay whole, to be overlapped with a forward; those at both
 * ends of the step are split, so the schedule mixes B with I and W.
 *
 * @throws {UserError} For fewer micro-batches than stages.
 */
export function dualPipeV(devices: number, microbatches: number): Schedule {
  if (microbatches < 2 * devices) {
    throw new UserError(
      `dualpipe-v needs at least as many micro-batches as stages, ${
        2 * devices
      } on ${devices} ranks; got ${microbatches}`,
    );
  }
  const make = actionMaker(microbatches);
  const actions = Array.from({ length: devices }, (_, rank) => rankActions(rank, devices, microbatches, make));
  return { name: "dualpipe-v", placement: vPlacement(devices), actions };
}

function rankActions(
  rank: number,
  devices: number,
  microbatches: number,
  make: ReturnType<typeof actionMaker>,
): Action[] {
  const list: Action[] = [];
  const delayed: Action[] = [];
  const below = devices - rank - 1;
  const forwards = [0, 0];
  const backwards = [0, 0];
  const stage = (chunk: number) => chunk === 0 ? rank : 2 * devices - 1 - rank;
  const forward = (chunk: number) => list.push(make("F", stage(chunk), forwards[chunk]++));
  const backward = (chunk: number, split = false) => {
    const microbatch = backwards[chunk]++;
    list.push(make(split ? "I" : "B", stage(chunk), microbatch));
    if (split) delayed.push(make("W", stage(chunk), microbatch));
  };
  const weight = () => list.push(...delayed.splice(0, 1));
  const times = (count: number, step: (turn: number) => void) => {
    for (let turn = 0; turn < count; turn++) step(turn);
  };

  times(2 * below, () => forward(0));
  times(rank + 1, () => {
    forward(0);
    forward(1);
  });
  times(below, () => {
    backward(1, true);
    weight();
    forward(1);
  });
  times(microbatches - 2 * devices + rank + 1, () => {
    forward(0);
    backward(1);
    forward(1);
    backward(0);
  });
  times(below, () => {
    backward(1);
    forward(1);
    backward(0);
  });
  // From the middle of this phase on, backwards are split, so that weight gradients are left for the drain.
  times(rank + 1, (turn) => {
    backward(1, 2 * turn > rank);
    backward(0, 2 * turn >= rank);
  });
  times(below, () => {
    weight();
    backward(0, true);
  });
  while (delayed.length > 0) weight();
  return list;
}
