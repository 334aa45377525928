import { type Action, actionMaker, type Schedule } from "../schedule.ts";
import { linearPlacement } from "./placement.ts";

/** Naive model parallelism: each micro-batch goes down and back up before the next one starts. Usually M = 1. */
export function naive(devices: number, microbatches: number): Schedule {
  const make = actionMaker(microbatches);
  const actions = Array.from({ length: devices }, (_, rank) => {
    const list: Action[] = [];
    for (let m = 0; m < microbatches; m++) list.push(make("F", rank, m), make("B", rank, m));
    return list;
  });
  return { name: "naive", placement: linearPlacement(devices), actions };
}
