/**
 * The zero-bubble schedules with one stage a rank (Qi et al., arXiv 2401.10241, section 2). Here each of them is an order
 * of F and I together with a limit on activations: weight gradients run in idle slots, and before anything that would
 * exceed the limit. With unit costs that gives the published bubbles and peaks.
 *
 * @module
 */

import type { Schedule } from "../schedule.ts";
import { unitCosts } from "../price/costs.ts";
import { lower } from "../program.ts";
import { fillCapped } from "../transforms/fill.ts";
import { oneFOneB } from "./one_f_one_b.ts";

/**
 * Splits the backwards of a schedule and fills in the weight gradients, so that no rank ever holds the activations of
 * more than `most` forwards, each held until its W.
 */
export function fillWithin(schedule: Schedule, most: number): Schedule {
  const memory = () => ({ activations: 1, derivatives: 0 });
  return { ...schedule, actions: fillCapped(lower(schedule), 1, unitCosts(), most, memory) };
}

/** ZB-H1: the order and the activation peak of 1F1B, N micro-batches, and a third of its bubble. */
export function zbH1(devices: number, microbatches: number): Schedule {
  return fillWithin(oneFOneB(devices, microbatches, "zb-h1"), devices);
}

/**
 * ZB-H2: twice the warm-up of 1F1B, so that the first backward never waits; holds 2N - 1 micro-batches. No rank idles
 * between its first and its last action; they start and end one after the other, as a parallelogram.
 */
export function zbH2(devices: number, microbatches: number): Schedule {
  const order = oneFOneB(devices, microbatches, "zb-h2", (rank) => 2 * (devices - rank - 1));
  return fillWithin(order, 2 * devices - 1);
}
