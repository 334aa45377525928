import { UserError } from "../../errors.ts";
import { callback, expectValue } from "../../rules.ts";
import type { Action, Schedule } from "../schedule.ts";
import { checkAmount, difference } from "./amounts.ts";
import { type Sizes, sizesOf } from "../check/sizes.ts";
import { validate } from "../check/validate.ts";

/**
 * What one stage holds, in bytes or any other unit: finite numbers, 0 or more where nothing else is said. Functions that take
 * a memory model throw a UserError for an amount that is none.
 */
export interface StageMemory {
  /** Kept from the F of a micro-batch on. */
  activations: number;
  /**
   * The part of `activations` that no W needs and that the end of I gives back; the rest waits for the W. Default 0, at most
   * `activations`, and below 0 where I leaves more of them behind: those that it recomputed.
   */
  released?: number;
  /** Output gradients that an I leaves behind for its W. A B keeps none. */
  derivatives: number;
  /** What is different where a W takes several micro-batches; by default the same for each as if it were alone. */
  slots?: SlotMemory;
  /** Kept by the F of a micro-batch whose backward is whole; `activations` when absent. */
  whole?: number;
  /**
   * Held only while an action of that kind runs. That of I may be below 0, down to `-derivatives`: where it overwrites
   * activations, it never holds all its derivatives besides them.
   */
  workspace?: Partial<Record<Action["kind"], number>>;
  /** The stage's input (F) and output gradient (I), counted in what F and I take: held earlier where the same rank makes them. */
  input?: { F: number; I: number };
  /** Bytes of the messages to other ranks that F and I send, held until the next action of the rank has ended. */
  messages?: { F: number; I: number };
  /** Held all the time. */
  parameters?: number;
  /** Held all the time. */
  gradients?: number;
  /** Held all the time. */
  optimizer?: number;
  /** Held all the time. */
  transfer?: number;
  /** Held all the time for each micro-batch of the step. */
  losses?: number;
}

/**
 * How the micro-batches of one W share memory: what the W reads of them lies in slabs with a slot for each, which are taken
 * whole at the first F (activations) or the first I (derivatives) of the group and given back with the W.
 */
export interface SlotMemory {
  /** The part of a micro-batch's activations that lies in slots. */
  activations: number;
  /** The part of its derivatives that lies in slots. */
  derivatives: number;
  /** What the end of its I gives back: of the activations outside slots, since a slot stays with its slab. */
  released: number;
  /** The part of `activations` that I overwrites with derivatives, which are among its `derivatives`: slabs move whole, at the first I. */
  moved?: number;
  /** In place of {@link StageMemory.workspace}: for the first of the group, which takes the slabs, and for the others. */
  workspace?: { first: { F: number; I: number }; later: { F: number; I: number } };
  /** By how much the W's workspace grows with each micro-batch after the first. */
  weights?: number;
}

/** A memory model: what each stage holds. */
export type Memory = (stage: number) => StageMemory;

/**
 * What each stage holds, checked: everything that reads a memory model asks here, once a stage.
 *
 * @throws {UserError} Says which amount of which stage is none.
 */
export function stagesOf(memory: Memory, stages: number): StageMemory[] {
  expectValue("The memory model", memory, callback);
  return Array.from({ length: stages }, (_, stage) => {
    const model = memory(stage);
    if (!model) {
      throw new UserError(`The memory model says nothing of stage ${stage}; the stages are 0 to ${stages - 1}`);
    }
    checkStage(model, `of stage ${stage} in the memory model`);
    return model;
  });
}

/** Below 0 too: these are differences of what was measured with and without something. */
const signed = ["released", "workspace.I", "slots.released", "slots.moved", "slots.workspace."];

function checkStage(model: StageMemory, where: string): void {
  const check = (amounts: object, prefix: string) => {
    for (const [name, value] of Object.entries(amounts)) {
      const path = prefix + name;
      if (value === undefined) continue;
      if (typeof value === "object" && value !== null) check(value, `${path}.`);
      else if (!signed.some((start) => path.startsWith(start))) checkAmount(`${path} ${where}`, value);
      else expectValue(`${path} ${where}`, value, difference);
    }
  };
  const { activations, derivatives, released = 0, workspace } = model;
  check(model, "");
  checkAmount(`activations ${where}`, activations);
  checkAmount(`derivatives ${where}`, derivatives);
  if (released > activations) {
    throw new UserError(`released ${where} is ${released} of ${activations} activations; it cannot be more`);
  }
  if (derivatives + (workspace?.I ?? 0) < 0) {
    throw new UserError(`workspace.I ${where} is ${workspace!.I}; it must be ${-derivatives} or more`);
  }
}

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

/** How the micro-batches of a schedule are grouped by the W, or B, that ends them; by `stage * M + microbatch`. */
export interface Groups {
  /** Micro-batches in the group. */
  readonly sizes: Int32Array;
  /** The group's first micro-batch in the order of its W: its name. */
  readonly firsts: Int32Array;
  /** 1 where a B ends the group. */
  readonly whole: Uint8Array;
}

/** The groups of a schedule. */
export function groupsOf(schedule: Schedule): Groups {
  const { stages, microbatches } = sizesOf(schedule);
  const count = stages * microbatches;
  const groups = { sizes: new Int32Array(count), firsts: new Int32Array(count), whole: new Uint8Array(count) };
  for (const list of schedule.actions) {
    for (const { kind, stage, microbatches: members } of list) {
      if (kind !== "W" && kind !== "B") continue;
      for (const microbatch of members) {
        const own = stage * microbatches + microbatch;
        groups.sizes[own] = members.length;
        groups.firsts[own] = stage * microbatches + members[0];
        groups.whole[own] = kind === "B" ? 1 : 0;
      }
    }
  }
  return groups;
}

/** What a rank holds while it runs its actions one after the other. */
export interface Holder {
  /** By category, now. */
  readonly held: Held;
  /** Takes what an action needs; until {@link Holder.end} the most that is held within it. */
  start(action: Action): void;
  /** Gives back what the action does not leave behind. */
  end(action: Action): void;
  /** What would be held within the action, if it ran now, and what it would leave behind. For a holder without groups. */
  preview(action: Action): { during: number; after: number };
}

/**
 * What a rank holds before its first action.
 *
 * @param stages As {@link stagesOf} gives them.
 * @param groups Those of the schedule, to be worked out once for all ranks; absent where they are not known yet, and every
 * micro-batch counts as alone.
 */
export function holderOf(
  { placement }: Schedule,
  { stages: count, microbatches }: Sizes,
  rank: number,
  stages: readonly StageMemory[],
  groups?: Groups,
): Holder {
  const held = Object.fromEntries(memoryCategories.map((category) => [category, 0])) as Held;
  for (let stage = 0; stage < count; stage++) {
    if (placement[stage] !== rank) continue;
    const { parameters = 0, gradients = 0, optimizer = 0, transfer = 0, losses = 0 } = stages[stage];
    held.parameters += parameters;
    held.gradients += gradients;
    held.optimizer += optimizer;
    held.transfer += transfer;
    held.workspace += losses * microbatches;
  }
  const { workspace: standing, transfer: rest } = held;
  /** Slabs in use, by group. */
  const slabs = { F: new Set<number>(), I: new Set<number>() };
  /** Bytes of the message that the last action sent. */
  let underway = 0;

  const own = ({ stage, microbatches: [microbatch] }: Action) => stage * microbatches + microbatch;
  const isShared = (at: number) => groups !== undefined && groups.sizes[at] > 1;
  /** Moves slots in advance: the first F or I of a group takes them for the others. */
  const shareSlots = (kind: "F" | "I", at: number, stage: StageMemory) => {
    if (!stage.slots || !isShared(at)) return;
    const category = kind === "F" ? "activations" : "derivatives";
    const first = groups!.firsts[at], bytes = stage.slots[category];
    const isFirst = !slabs[kind].has(first);
    slabs[kind].add(first);
    held[category] += isFirst ? (groups!.sizes[at] - 1) * bytes : -bytes;
    if (kind === "I" && isFirst) held.activations -= groups!.sizes[at] * (stage.slots.moved ?? 0);
    const workspace = stage.slots.workspace?.[isFirst ? "first" : "later"][kind];
    if (workspace !== undefined) held.workspace = standing + workspace;
  };
  const kept = (at: number, stage: StageMemory) =>
    groups?.whole[at] ? stage.whole ?? stage.activations : stage.activations;
  /** The stage that the result of an F or I goes to. */
  const next = ({ kind, stage }: Action) => kind === "F" ? stage + 1 : stage - 1;
  const isHanded = (from: number, to: number) => to >= 0 && to < count && placement[from] === placement[to];
  const isSent = (from: number, to: number) => to >= 0 && to < count && placement[from] !== placement[to];

  const holder: Holder = {
    held,
    preview(action) {
      const [now, sent] = [{ ...held }, underway];
      holder.start(action);
      const during = totalHeld(held);
      holder.end(action);
      const after = totalHeld(held);
      Object.assign(held, now);
      underway = sent;
      return { during, after };
    },
    start(action) {
      const { kind, stage, microbatches: members } = action;
      const memory = stages[stage], at = own(action);
      held.workspace = standing + (memory.workspace?.[kind] ?? 0);
      if (kind === "W") {
        held.workspace += (members.length - 1) * (memory.slots?.weights ?? 0);
        return;
      }
      const backward = kind !== "F";
      const previous = backward ? stage + 1 : stage - 1;
      if (isHanded(stage, previous)) {
        held[backward ? "derivatives" : "activations"] -= memory.input?.[backward ? "I" : "F"] ?? 0;
      }
      if (kind === "F") held.activations += kept(at, memory);
      if (kind === "I") held.derivatives += memory.derivatives;
      if (kind !== "B") shareSlots(kind, at, memory);
      const sent = memory.messages?.[backward ? "I" : "F"] ?? 0;
      held.transfer = rest + underway + (isSent(stage, next(action)) ? sent : 0);
    },
    end(action) {
      const { kind, stage, microbatches: members } = action;
      const memory = stages[stage], at = own(action);
      held.workspace = standing;
      underway = held.transfer - rest - underway;
      held.transfer = rest + underway;
      const released = isShared(at) ? memory.slots?.released ?? memory.released ?? 0 : memory.released ?? 0;
      if (kind === "I") held.activations -= released;
      if (kind === "B") held.activations -= kept(at, memory);
      if (kind === "W") {
        const gone = released + (isShared(at) ? memory.slots?.moved ?? 0 : 0);
        held.activations -= members.length * (memory.activations - gone);
        held.derivatives -= members.length * memory.derivatives;
        if (groups) { for (const kind of ["F", "I"] as const) slabs[kind].delete(groups.firsts[at]); }
        return;
      }
      const to = next(kind === "B" ? { ...action, kind: "I" } : action);
      if (isHanded(stage, to)) {
        held[kind === "F" ? "activations" : "derivatives"] += stages[to].input?.[kind === "F" ? "F" : "I"] ?? 0;
      }
    },
  };
  return holder;
}

/** Sum over the categories. */
export function totalHeld(held: Held): number {
  let total = 0;
  for (const category of memoryCategories) total += held[category];
  return total;
}

/**
 * The most that each rank holds at once. It depends on the order of its actions only, not on their times.
 *
 * @throws {UserError} What `validate()` says of the schedule, and for an amount of memory that is none.
 */
export function peakMemory(schedule: Schedule, memory: Memory = unitMemory): number[] {
  validate(schedule);
  return peaksOf(schedule, memory);
}

/** {@link peakMemory} of a schedule that is known to be valid. */
export function peaksOf(schedule: Schedule, memory: Memory): number[] {
  const groups = groupsOf(schedule);
  const sizes = sizesOf(schedule);
  const stages = stagesOf(memory, sizes.stages);
  return schedule.actions.map((list, rank) => {
    const holder = holderOf(schedule, sizes, rank, stages, groups);
    let peak = totalHeld(holder.held);
    for (const action of list) {
      holder.start(action);
      peak = Math.max(peak, totalHeld(holder.held));
      holder.end(action);
    }
    return peak;
  });
}
