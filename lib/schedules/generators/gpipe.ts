import { type Action, actionMaker, type Schedule } from "../schedule.ts";
import { linearPlacement } from "./placement.ts";

/** GPipe (arXiv 1811.06965): all forwards, then all backwards, both in ascending order. Every rank keeps M activations. */
export function gpipe(devices: number, microbatches: number): Schedule {
  const make = actionMaker(microbatches);
  const actions = Array.from({ length: devices }, (_, rank) => {
    const list: Action[] = [];
    for (let m = 0; m < microbatches; m++) list.push(make("F", rank, m));
    for (let m = 0; m < microbatches; m++) list.push(make("B", rank, m));
    return list;
  });
  return { name: "gpipe", placement: linearPlacement(devices), actions };
}
