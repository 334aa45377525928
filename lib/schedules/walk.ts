import type { Action, Schedule } from "./actions.ts";

/** Where a dependency of an action comes from: the forward or the input gradient of a stage and micro-batch. */
export interface Source {
  /** `F`: an activation; `I`: a gradient (made by an I or a B). */
  readonly kind: "F" | "I";
  /** Stage that makes it. */
  readonly stage: number;
  /** Micro-batch it belongs to. */
  readonly microbatch: number;
}

/**
 * What an F, I or B waits for from another stage: a forward the activation of the stage before, a backward the gradient
 * of the stage after. `undefined` at the two ends of the pipeline and for a W, which only follows its own I.
 */
export function sourceOf(action: Action, stages: number): Source | undefined {
  const { kind, stage } = action;
  const microbatch = action.microbatches[0];
  if (kind === "F") return stage > 0 ? { kind: "F", stage: stage - 1, microbatch } : undefined;
  if (kind === "W") return undefined;
  return stage < stages - 1 ? { kind: "I", stage: stage + 1, microbatch } : undefined;
}

/**
 * Visits every action in an order in which it could run: each rank's list in order, nothing before what it waits for
 * from another stage. Takes time and memory linear in the number of actions.
 *
 * @param visit Called once an action; `source` is the number of what it waited for, -1 for nothing. Numbers are
 * `stage * M + microbatch` for an activation, and `S * M` more for a gradient.
 * @returns How many actions each rank ran: the length of its list, or less where the schedule is stuck.
 */
export function walk(
  schedule: Schedule,
  visit?: (rank: number, index: number, action: Action, source: number) => void,
): Int32Array {
  const { devices, stages, microbatches, actions } = schedule;
  const gradients = stages * microbatches;
  const made = new Uint8Array(2 * gradients);
  const waiter = new Int32Array(2 * gradients).fill(-1);
  const position = new Int32Array(devices);
  const ready: number[] = [];
  for (let rank = devices - 1; rank >= 0; rank--) ready.push(rank);
  while (ready.length > 0) {
    const rank = ready.pop()!;
    const list = actions[rank];
    while (position[rank] < list.length) {
      const action = list[position[rank]];
      const { kind, stage } = action;
      const own = stage * microbatches + action.microbatches[0];
      let source = -1;
      if (kind === "F") {
        if (stage > 0) source = own - microbatches;
      } else if (kind !== "W" && stage < stages - 1) source = gradients + own + microbatches;
      if (source >= 0 && made[source] === 0) {
        waiter[source] = rank;
        break;
      }
      visit?.(rank, position[rank], action, source);
      position[rank]++;
      if (kind === "W") continue;
      const output = kind === "F" ? own : gradients + own;
      made[output] = 1;
      if (waiter[output] >= 0 && waiter[output] !== rank) ready.push(waiter[output]);
    }
  }
  return position;
}
