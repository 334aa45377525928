import type { Action, Schedule } from "./actions.ts";

/** What one stage holds, in bytes or any other unit. */
export interface StageMemory {
  /** Kept from the F of a micro-batch on. */
  activations: number;
  /** The part of `activations` that no W needs and that the end of I gives back; the rest waits for the W. Default 0. */
  released?: number;
  /** Output gradients that an I leaves behind for its W. A B keeps none. */
  derivatives: number;
  /** Held only while an action of that kind runs. */
  workspace?: Partial<Record<Action["kind"], number>>;
  /** Held all the time. */
  parameters?: number;
  /** Held all the time. */
  gradients?: number;
  /** Held all the time. */
  optimizer?: number;
  /** Staging buffers of the stage's channels, held all the time. */
  transfer?: number;
}

/** A memory model: what each stage holds. */
export type Memory = (stage: number) => StageMemory;

/** Everything is kept until the W, and derivatives are as large as activations, 1 each. */
export const unitMemory: Memory = (): StageMemory => ({ activations: 1, derivatives: 1 });

/** What each category of a memory model stands for; the names are those of the run's ledger. */
export const memoryCategories = [
  "parameters",
  "gradients",
  "optimizer",
  "transfer",
  "activations",
  "derivatives",
  "workspace",
] as const;

/** A category of memory. */
export type MemoryCategory = typeof memoryCategories[number];

/** What a rank holds at one moment, by category. */
export type Held = Record<MemoryCategory, number>;

/** What the stages of a rank hold when no micro-batch is in flight. */
export function heldAtRest(schedule: Schedule, rank: number, memory: Memory): Held {
  const held: Held = {
    parameters: 0,
    gradients: 0,
    optimizer: 0,
    transfer: 0,
    activations: 0,
    derivatives: 0,
    workspace: 0,
  };
  for (let stage = 0; stage < schedule.stages; stage++) {
    if (schedule.placement[stage] !== rank) continue;
    const { parameters = 0, gradients = 0, optimizer = 0, transfer = 0 } = memory(stage);
    held.parameters += parameters;
    held.gradients += gradients;
    held.optimizer += optimizer;
    held.transfer += transfer;
  }
  return held;
}

/** What an action takes when it starts. */
export function take(held: Held, action: Action, stage: StageMemory): void {
  if (action.kind === "F") held.activations += stage.activations;
  if (action.kind === "I") held.derivatives += stage.derivatives;
  held.workspace = stage.workspace?.[action.kind] ?? 0;
}

/** What an action gives back when it ends. */
export function giveBack(held: Held, action: Action, stage: StageMemory): void {
  const { kind, microbatches } = action;
  held.workspace = 0;
  if (kind === "I") held.activations -= stage.released ?? 0;
  if (kind === "B") held.activations -= stage.activations;
  if (kind === "W") {
    held.activations -= microbatches.length * (stage.activations - (stage.released ?? 0));
    held.derivatives -= microbatches.length * stage.derivatives;
  }
}

/** Sum over the categories. */
export function totalHeld(held: Held): number {
  let total = 0;
  for (const category of memoryCategories) total += held[category];
  return total;
}

/** The most that each rank holds at once. It depends on the order of its actions only, not on their times. */
export function peakMemory(schedule: Schedule, memory: Memory = unitMemory): number[] {
  const stages = Array.from({ length: schedule.stages }, (_, stage) => memory(stage));
  return schedule.actions.map((list, rank) => {
    const held = heldAtRest(schedule, rank, memory);
    const atRest = totalHeld(held);
    let peak = atRest;
    for (const action of list) {
      take(held, action, stages[action.stage]);
      peak = Math.max(peak, atRest + held.activations + held.derivatives + held.workspace);
      giveBack(held, action, stages[action.stage]);
    }
    return peak;
  });
}
