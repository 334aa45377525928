/**
 * Schedules on a V: rank r holds stage r on the way down and stage 2N - 1 - r on the way up, so that the loss is on the
 * first rank and the same number of activations can be in flight on every rank.
 *
 * @module
 */

import { type Action, actionMaker, type Schedule } from "../schedule.ts";
import { vPlacement } from "./placement.ts";
import { fillWithin } from "./zero_bubble.ts";

/**
 * ZB-V (arXiv 2401.10241, section 6): rank r starts with 2(N - r) - 1 forwards on the way down, as many as fit before the
 * first one comes back; alternates up and down r times; and then always runs what arrives. With f = i = w no rank idles
 * between its first and its last action, at the activation peak of 1F1B: 2N halves of a rank's stages.
 */
export function zbV(devices: number, microbatches: number): Schedule {
  const make = actionMaker(microbatches);
  const actions = Array.from({ length: devices }, (_, rank) => {
    const list: Action[] = [];
    const next = { F: [0, 0], B: [0, 0] };
    const run = (kind: "F" | "B", chunk: 0 | 1) => {
      if (next[kind][chunk] === microbatches) return;
      list.push(make(kind, chunk === 0 ? rank : 2 * devices - 1 - rank, next[kind][chunk]++));
    };
    for (let k = 0; k < 2 * (devices - rank) - 1; k++) run("F", 0);
    for (let k = 0; k < rank; k++) {
      run("F", 1);
      run("F", 0);
    }
    for (let k = 0; k < devices - rank; k++) {
      run("F", 1);
      run("B", 1);
    }
    while (next.B[0] < microbatches || next.B[1] < microbatches) {
      run("F", 0);
      run("B", 0);
      run("F", 1);
      run("B", 1);
    }
    return list;
  });
  return fillWithin({ name: "zb-v", placement: vPlacement(devices), actions }, 2 * devices);
}

/** When one micro-batch runs on a rank, in units: forward down, forward up, backward down (stage 2N-1-r), backward up. */
type BuildingBlock = (rank: number) => [number, number, number, number];

/**
 * Repeats a building block every 6 units, the work of one micro-batch on a rank (Qi et al., "Pipeline Parallelism with
 * Controllable Memory", arXiv 2405.15362, section 3): how long a block keeps its activations sets the peak.
 */
function repeat(name: string, devices: number, microbatches: number, block: BuildingBlock, most: number): Schedule {
  const make = actionMaker(microbatches);
  const actions = Array.from({ length: devices }, (_, rank) => {
    const up = 2 * devices - 1 - rank;
    const [f0, f1, b1, b0] = block(rank);
    const timed: { time: number; action: Action }[] = [];
    for (let m = 0; m < microbatches; m++) {
      timed.push({ time: f0 + 6 * m, action: make("F", rank, m) }, { time: f1 + 6 * m, action: make("F", up, m) });
      timed.push({ time: b1 + 6 * m, action: make("B", up, m) }, { time: b0 + 6 * m, action: make("B", rank, m) });
    }
    return timed.sort((a, b) => a.time - b.time).map(({ action }) => action);
  });
  return fillWithin({ name, placement: vPlacement(devices), actions }, most);
}

/** V-Half: half of 1F1B's activations, floor(N/2) + 1 micro-batches, at half of its bubble. */
export function vHalf(devices: number, microbatches: number): Schedule {
  // Without the three units, the way up of one micro-batch meets the way down of another where N is even.
  const gap = devices % 2 === 0 ? 3 : 0;
  const block: BuildingBlock = (rank) => [
    2 * rank,
    3 * devices - rank - 2,
    3 * devices + gap + 2 * rank - 1,
    6 * devices + gap - rank - 2,
  ];
  return repeat("v-half", devices, microbatches, block, 2 * Math.floor((devices + 2) / 2));
}

/** V-Min: a third of 1F1B's activations, floor((N + 4) / 3) micro-batches, at about two thirds of its bubble. */
export function vMin(devices: number, microbatches: number): Schedule {
  const gap = devices % 3 === 0 ? 2 : 0;
  const block: BuildingBlock = (rank) => [
    rank,
    2 * devices - 1 - rank,
    2 * devices + gap + rank,
    4 * devices + gap - rank - 1,
  ];
  return repeat("v-min", devices, microbatches, block, 2 * Math.floor((devices + 4) / 3));
}
