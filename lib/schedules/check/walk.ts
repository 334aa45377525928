import type { Action, Schedule } from "../schedule.ts";
import { checkSizes } from "./sizes.ts";

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

/** How far a walk came. */
export interface Walk {
  /** Whether every action ran, and with them every micro-batch on every stage once: false for what `validate()` refuses. */
  readonly isValid: boolean;
  /** How many actions each rank ran. Where nothing else is wrong, less than its list shows where the rank is stuck. */
  readonly position: Int32Array;
}

/**
 * Visits every action in an order in which it could run: each rank's list in order, nothing before what it waits for
 * from another stage. Ends at the first action that should not be there. Takes time and memory linear in the number of actions.
 *
 * @param visit Called once an action; `source` is the number of what it waited for, -1 for nothing. Numbers are
 * `stage * M + microbatch` for an activation, and `S * M` more for a gradient.
 * @throws {UserError} For sizes that contradict each other.
 */
export function walk(
  schedule: Schedule,
  visit?: (rank: number, index: number, action: Action, source: number) => void,
): Walk {
  checkSizes(schedule);
  const { devices, stages, microbatches, placement, actions, width } = schedule;
  const gradients = stages * microbatches;
  const state = new Uint8Array(gradients); // of a micro-batch on a stage: 1 after F, 2 after I, 3 after W or B
  const waiter = new Int32Array(2 * gradients).fill(-1);
  const position = new Int32Array(devices);
  const isMicrobatch = (value: number) => Number.isInteger(value) && value >= 0 && value < microbatches;
  const fault = { isValid: false, position };
  let finished = 0;
  let isSplit = false;
  const ready: number[] = [];
  for (let rank = devices - 1; rank >= 0; rank--) ready.push(rank);
  while (ready.length > 0) {
    const rank = ready.pop()!;
    const list = actions[rank];
    for (let index = position[rank]; index < list.length; position[rank] = ++index) {
      const action = list[index];
      if (!isAction(action)) return fault;
      const { kind, stage, microbatches: carried } = action;
      if (!Number.isInteger(stage) || placement[stage] !== rank) return fault;
      if (kind === "W") {
        if (carried.length < 1 || carried.length > width) return fault;
        for (const microbatch of carried) {
          const own = stage * microbatches + microbatch;
          if (!isMicrobatch(microbatch) || state[own] !== 2) return fault;
          state[own] = 3;
        }
        isSplit = true;
        finished += carried.length;
        visit?.(rank, index, action, -1);
        continue;
      }
      const forward = kind === "F";
      if (!forward && kind !== "I" && kind !== "B") return fault;
      if (carried.length !== 1 || !isMicrobatch(carried[0])) return fault;
      const own = stage * microbatches + carried[0];
      let source = -1;
      if (forward) {
        if (stage > 0) source = own - microbatches;
      } else if (stage < stages - 1) source = gradients + own + microbatches;
      if (source >= 0 && (forward ? state[source] < 1 : state[source - gradients] < 2)) {
        waiter[source] = rank;
        break;
      }
      if (state[own] !== (forward ? 0 : 1)) return fault;
      state[own] = forward ? 1 : kind === "I" ? 2 : 3;
      if (kind === "I") isSplit = true;
      if (kind === "B") finished++;
      visit?.(rank, index, action, source);
      const woken = waiter[forward ? own : gradients + own];
      if (woken >= 0 && woken !== rank) ready.push(woken);
    }
  }
  return { isValid: finished === gradients && isSplit === schedule.twoStage && isAtEnd(), position };

  function isAtEnd(): boolean {
    return actions.every((list, rank) => position[rank] === list.length);
  }
}

/** Whether a value has the form of an action; schedules come from files and from JavaScript too. */
export function isAction(value: unknown): value is Action {
  return typeof value === "object" && value !== null && Array.isArray((value as Action).microbatches);
}
