import { UserError } from "../../errors.ts";
import { callback, expectValue } from "../../rules.ts";
import type { Action, Schedule } from "../schedule.ts";
import { checkAmount, difference } from "./amounts.ts";
import { B, inputOf, isMessage, lower, outputOf, type Program } from "../program.ts";

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
 * What each rank holds before its first action.
 *
 * @param groups The same Program again; absent where the W are still to be placed, and every micro-batch counts as alone.
 */
export function holdersOf(program: Program, memory: Memory, groups?: Program): Holder[] {
  const stages = stagesOf(memory, program.stages), ways = waysOf(program);
  return program.schedule.actions.map((_, rank) => holderOf(program, rank, stages, ways, groups));
}

/** How a stage's activations, or its gradients, come and go: the same for every micro-batch. */
interface Way {
  /** Whether the same rank makes what comes in. */
  readonly isHanded: boolean;
  /** The stage of the same rank that its result is handed to. */
  readonly handedTo?: number;
  /** Whether its result is sent to another rank. */
  readonly isSent: boolean;
}

/** Of each stage, how its activations (F) and its gradients (I) come and go. */
function waysOf(program: Program): Record<"F" | "I", Way>[] {
  const { stages, microbatches, stage, to, forward, backward } = program;
  const wayOf = (node: number): Way => {
    const input = inputOf(program, node), output = outputOf(program, node);
    const isSent = output >= 0 && isMessage(program, output);
    return {
      isHanded: input >= 0 && !isMessage(program, input),
      ...(output >= 0 && !isSent ? { handedTo: stage[to[output]] } : {}),
      isSent,
    };
  };
  return Array.from({ length: stages }, (_, stage) => ({
    F: wayOf(forward[stage * microbatches]),
    I: wayOf(backward[stage * microbatches]),
  }));
}

function holderOf(
  { schedule: { placement }, microbatches }: Program,
  rank: number,
  stages: readonly StageMemory[],
  ways: readonly Record<"F" | "I", Way>[],
  groups: Program | undefined,
): Holder {
  const held = Object.fromEntries(memoryCategories.map((category) => [category, 0])) as Held;
  for (const [stage, { parameters = 0, gradients = 0, optimizer = 0, transfer = 0, losses = 0 }] of stages.entries()) {
    if (placement[stage] !== rank) continue;
    held.parameters += parameters;
    held.gradients += gradients;
    held.optimizer += optimizer;
    held.transfer += transfer;
    held.workspace += losses * microbatches;
  }
  const { workspace: standing, transfer: rest } = held;
  /** Slabs in use, by the node that ends their group. */
  const slabs = { F: new Set<number>(), I: new Set<number>() };
  /** Bytes of the message that the last action sent. */
  let underway = 0;

  const own = ({ stage, microbatches: [microbatch] }: Action) => stage * microbatches + microbatch;
  /** How many micro-batches end their stay with one. */
  const sizeOf = (at: number) =>
    groups ? groups.schedule.actions[rank][groups.group[at] - groups.first[rank]].microbatches.length : 1;
  /** Moves slots in advance: the first F or I of a group takes them for the others. */
  const shareSlots = (kind: "F" | "I", at: number, { slots }: StageMemory) => {
    const size = slots ? sizeOf(at) : 1;
    if (!slots || size === 1) return;
    const group = groups!.group[at];
    const category = kind === "F" ? "activations" : "derivatives";
    const isFirst = !slabs[kind].has(group);
    slabs[kind].add(group);
    held[category] += (isFirst ? size - 1 : -1) * slots[category];
    if (kind === "I" && isFirst) held.activations -= size * (slots.moved ?? 0);
    const workspace = slots.workspace?.[isFirst ? "first" : "later"][kind];
    if (workspace !== undefined) held.workspace = standing + workspace;
  };
  const kept = (at: number, stage: StageMemory) =>
    groups?.kind[groups.group[at]] === B ? stage.whole ?? stage.activations : stage.activations;

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
      const passes = kind === "F" ? "F" : "I", way = ways[stage][passes];
      if (way.isHanded) held[passes === "F" ? "activations" : "derivatives"] -= memory.input?.[passes] ?? 0;
      if (kind === "F") held.activations += kept(at, memory);
      if (kind === "I") held.derivatives += memory.derivatives;
      if (kind !== "B") shareSlots(kind, at, memory);
      held.transfer = rest + underway + (way.isSent ? memory.messages?.[passes] ?? 0 : 0);
    },
    end(action) {
      const { kind, stage, microbatches: members } = action;
      const memory = stages[stage], at = own(action);
      held.workspace = standing;
      underway = held.transfer - rest - underway;
      held.transfer = rest + underway;
      const slots = memory.slots && sizeOf(at) > 1 ? memory.slots : undefined;
      const released = slots?.released ?? memory.released ?? 0;
      if (kind === "I") held.activations -= released;
      if (kind === "B") held.activations -= kept(at, memory);
      if (kind === "W") {
        held.activations -= members.length * (memory.activations - (released + (slots?.moved ?? 0)));
        held.derivatives -= members.length * memory.derivatives;
        if (groups) { for (const passes of ["F", "I"] as const) slabs[passes].delete(groups.group[at]); }
        return;
      }
      const passes = kind === "F" ? "F" : "I", { handedTo } = ways[stage][passes];
      if (handedTo === undefined) return;
      held[passes === "F" ? "activations" : "derivatives"] += stages[handedTo].input?.[passes] ?? 0;
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
  return peaksOf(lower(schedule), memory);
}

/** {@link peakMemory} of a schedule that is lowered. */
export function peaksOf(program: Program, memory: Memory): number[] {
  return holdersOf(program, memory, program).map((holder, rank) => {
    let peak = totalHeld(holder.held);
    for (const action of program.schedule.actions[rank]) {
      holder.start(action);
      peak = Math.max(peak, totalHeld(holder.held));
      holder.end(action);
    }
    return peak;
  });
}
