import { UserError } from "../../errors.ts";
import { type Bytes, categories, noBytes } from "../../memory.ts";
import { callback, expectValue } from "../../rules.ts";
import type { Action, Schedule } from "../schedule.ts";
import { checkAmount, difference } from "./amounts.ts";
import { B, F, inputOf, isMessage, lower, outputOf, type Program } from "../program.ts";
import { stagedAfter } from "./staging.ts";

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
  /** Where the same rank makes the input, what of it that stage keeps too until its I: one tensor, counted once. */
  shared?: SharedInput;
  /** Bytes of the messages to other ranks that F and I send, held until the next action of the rank has ended. */
  messages?: { F: number; I: number };
  /** Bytes that the messages of F and I to other ranks lie in until they are received, on devices that are slower than their hosts. */
  staging?: { F: number; I: number };
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
  /** Held only while the step ends: gradients are looked at and summed up, parameters updated. */
  update?: number;
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
  /** The part of {@link StageMemory.input} that lies in slots: where the same rank makes it, that takes the slab. */
  input?: { F: number; I: number };
  /** In place of {@link StageMemory.workspace}, for all but the first of a group. */
  workspace?: { F: number; I: number };
  /**
   * The same for groups of 2, 3 and so on: of the first F and the first I, which take the slabs, and of the W. Schedules with larger
   * groups are refused.
   */
  groups?: readonly { F: number; I: number; W: number }[];
}

/** A tensor that two stages of a rank keep: the one that makes it, and the one that takes it. It goes with the last of them. */
export interface SharedInput {
  /** What both keep. */
  kept: number;
  /** What of that the I of the stage before works in, where it is the last. */
  reused: number;
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
const signed = ["released", "workspace.I", "slots.released", "slots.moved", "slots.workspace.", "slots.groups."];

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

/** What a rank holds at one moment, by category; the names are those of the run's ledger. */
export type Held = Bytes;

/** What a rank holds while it runs its actions one after the other. */
export interface Holder {
  /** By category, now. */
  readonly held: Held;
  /** The most that is held while the step ends, all categories. */
  readonly atEnd: number;
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
  const sent = (node: number) => stages[program.stage[node]].staging?.[program.kind[node] === F ? "F" : "I"] ?? 0;
  const staged = stages.some(({ staging }) => staging) ? stagedAfter(program, sent) : undefined;
  return program.schedule.actions.map((_, rank) => holderOf({ program, stages, ways, staged, groups }, rank));
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

/** What the holders of all ranks know. */
interface Known {
  readonly program: Program;
  readonly stages: readonly StageMemory[];
  readonly ways: readonly Record<"F" | "I", Way>[];
  /** What messages may take after each node; absent where nothing is said of it. */
  readonly staged: Float64Array | undefined;
  readonly groups: Program | undefined;
}

/** What of a group has come and gone of the inputs that the stage before keeps too. */
interface Shared {
  readonly taken: number;
  readonly givenBack: number;
  /** Whether the group's own stay is over. */
  readonly isOver: boolean;
}

const categoryOf = { F: "activations", I: "derivatives" } as const;

function holderOf({ program, stages, ways, staged, groups }: Known, rank: number): Holder {
  const { schedule: { placement }, microbatches, first, forward, backward } = program;
  const held = noBytes();
  let update = 0;
  for (const [stage, amounts] of stages.entries()) {
    if (placement[stage] !== rank) continue;
    const { parameters = 0, gradients = 0, optimizer = 0, transfer = 0, losses = 0 } = amounts;
    held.parameters += parameters;
    held.gradients += gradients;
    held.optimizer += optimizer;
    held.transfer += transfer;
    held.workspace += losses * microbatches;
    update += amounts.update ?? 0;
  }
  const { workspace: standing, transfer: rest } = held;
  const atEnd = totalHeld(held) + update + (staged && first[rank + 1] > first[rank] ? staged[first[rank + 1] - 1] : 0);
  /** Slabs in use, by the node that ends their group: those of activations and derivatives, and those of inputs. */
  const slabs = { F: new Set<number>(), I: new Set<number>() }, inputs = { F: new Set<number>(), I: new Set<number>() };
  /** Of each group of a stage that shares its input. */
  let shares = new Map<number, Shared>();
  /** Bytes of the message that the last action sent. */
  let underway = 0;
  /** Bytes of the messages that may not have been received. */
  let waiting = 0;

  const own = ({ stage, microbatches: [microbatch] }: Action, at = stage) => at * microbatches + microbatch;
  /** How many micro-batches end their stay with one. */
  const sizeOf = (at: number) =>
    groups ? groups.schedule.actions[rank][groups.group[at] - groups.first[rank]].microbatches.length : 1;
  const groupOf = (at: number) => groups ? groups.group[at] : at;
  const slotsOf = (at: number, { slots }: StageMemory) => slots && sizeOf(at) > 1 ? slots : undefined;
  const kept = (at: number, stage: StageMemory) =>
    groups?.kind[groups.group[at]] === B ? stage.whole ?? stage.activations : stage.activations;
  /** So much of each micro-batch, of which the first of a group takes the part in slots for all. */
  const withSlots = (alone: number, slot: number, isFirst: boolean, at: number) =>
    alone - slot + (isFirst ? sizeOf(at) * slot : 0);
  /** What the input of an action takes, in slots from the first of its group on. */
  const inputOfGroup = (passes: "F" | "I", at: number, stage: StageMemory, isFirst: boolean) =>
    withSlots(stage.input?.[passes] ?? 0, slotsOf(at, stage)?.input?.[passes] ?? 0, isFirst, at);
  /** Whether nobody has entered the group yet. */
  const enter = (set: Set<number>, at: number) => set.size < set.add(groupOf(at)).size;
  /**
   * Enters what becomes of the two holds on one input. Its slab goes with the last of them: until the group is over, what both hold
   * counts once, and then all of it until the stage before has given back the last.
   */
  const share = (at: number, { shared }: StageMemory, change: (now: Shared) => Shared) => {
    if (!shared?.kept) return;
    const size = sizeOf(at),
      now = shares.get(groupOf(at)) ?? { taken: 0, givenBack: 0, isOver: false },
      next = change(now);
    const counted = ({ taken, givenBack, isOver }: Shared) => isOver ? givenBack % size : givenBack - taken;
    held.activations += (counted(next) - counted(now)) * shared.kept;
    if (next.isOver && next.givenBack === size) shares.delete(groupOf(at));
    else shares.set(groupOf(at), next);
  };

  const holder: Holder = {
    held,
    atEnd,
    preview(action) {
      const [now, sent, before, shared] = [{ ...held }, underway, waiting, shares];
      shares = new Map(shares);
      holder.start(action);
      const during = totalHeld(held);
      holder.end(action);
      const after = totalHeld(held);
      Object.assign(held, now);
      [underway, waiting, shares] = [sent, before, shared];
      return { during, after };
    },
    start(action) {
      const { kind, stage, microbatches: members } = action;
      const memory = stages[stage], at = own(action);
      held.workspace = standing + (memory.workspace?.[kind] ?? 0);
      if (kind === "W") {
        const shared = memory.slots?.groups?.[members.length - 2];
        if (shared) held.workspace = standing + shared.W;
        return;
      }
      const passes = kind === "F" ? "F" : "I", { isHanded, handedTo, isSent } = ways[stage][passes];
      const category = categoryOf[passes], slots = slotsOf(at, memory);
      const isFirst = slots === undefined || enter(slabs[passes], at);
      if (kind === "F") held.activations += withSlots(kept(at, memory), slots?.activations ?? 0, isFirst, at);
      if (kind === "I") held.derivatives += withSlots(memory.derivatives, slots?.derivatives ?? 0, isFirst, at);
      if (kind === "I" && isFirst) held.activations -= sizeOf(at) * (slots?.moved ?? 0);
      const shared = isFirst ? slots?.groups?.[sizeOf(at) - 2] : slots?.workspace;
      if (shared) held.workspace = standing + shared[passes];
      if (isHanded) held[category] -= inputOfGroup(passes, at, memory, isFirst);
      if (handedTo !== undefined) {
        const receiver = own(action, handedTo), its = stages[handedTo];
        const isNew = slotsOf(receiver, its) === undefined || enter(inputs[passes], receiver);
        held[category] += inputOfGroup(passes, receiver, its, isNew);
        if (kind === "F") share(receiver, its, (now) => ({ ...now, taken: now.taken + 1 }));
      }
      const { handedTo: keeper } = ways[stage].F;
      if (kind !== "F" && keeper !== undefined) {
        const { kept = 0, reused = 0 } = stages[keeper].shared ?? {}, receiver = own(action, keeper);
        const isLast = shares.get(groupOf(receiver))?.isOver ?? false;
        if (kind === "I" && isLast && sizeOf(receiver) === 1) held.workspace -= reused;
        if (kind === "B" && !isLast) held.workspace += kept; // by itself it would reuse what it gives back
      }
      held.transfer = rest + underway + waiting +
        (isSent ? (memory.messages?.[passes] ?? 0) + (memory.staging?.[passes] ?? 0) : 0);
    },
    end(action) {
      const { kind, stage, microbatches: members } = action;
      const memory = stages[stage], at = own(action);
      held.workspace = standing;
      const passes = kind === "F" ? "F" : "I", { isSent } = ways[stage][passes];
      underway = kind !== "W" && isSent ? memory.messages?.[passes] ?? 0 : 0;
      if (staged && kind !== "W") waiting = staged[(kind === "F" ? forward : backward)[at]];
      held.transfer = rest + underway + waiting;
      const slots = slotsOf(at, memory);
      const released = slots?.released ?? memory.released ?? 0;
      if (kind === "I") held.activations -= released;
      if (kind === "B") held.activations -= kept(at, memory);
      if (kind === "W") {
        held.activations -= members.length * (memory.activations - (released + (slots?.moved ?? 0)));
        held.derivatives -= members.length * memory.derivatives;
        for (const { F, I } of [slabs, inputs]) [F, I].forEach((set) => set.delete(groupOf(at)));
      }
      const { isHanded, handedTo } = ways[stage].F;
      if (isHanded && (kind === "W" || kind === "B")) {
        for (const member of groups ? [members[0]] : members) {
          share(stage * microbatches + member, memory, (now) => ({ ...now, isOver: true }));
        }
      }
      if (handedTo !== undefined && (kind === "I" || kind === "B")) {
        share(own(action, handedTo), stages[handedTo], (now) => ({ ...now, givenBack: now.givenBack + 1 }));
      }
    },
  };
  return holder;
}

/** Sum over the categories. */
export function totalHeld(held: Held): number {
  let total = 0;
  for (const category of categories) total += held[category];
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
    let peak = Math.max(totalHeld(holder.held), holder.atEnd);
    for (const action of program.schedule.actions[rank]) {
      holder.start(action);
      peak = Math.max(peak, totalHeld(holder.held));
      holder.end(action);
    }
    return peak;
  });
}
