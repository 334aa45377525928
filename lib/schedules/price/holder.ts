/** What ranks hold while they run their actions, by a memory model. */
import { UserError } from "../../errors.ts";
import { type Bytes, noBytes } from "../../memory.ts";
import { F, inputOf, isMessage, outputOf, type Program } from "../program.ts";
import type { Action } from "../schedule.ts";
import { alone, type Groups, groupsOf } from "./groups.ts";
import { type Memory, type StageMemory, stagesOf } from "./memory.ts";
import { followShared } from "./shared_inputs.ts";
import { stagedAfter } from "./staging.ts";

/** What a rank holds at one moment, by category; the names are those of the run's ledger. */
export type Held = Bytes;

/** What a rank holds while it runs its actions one after the other. */
export interface Holder {
  /** By category, now. */
  readonly held: Held;
  /** What is held at most while the step ends, all categories. */
  readonly atEnd: number;
  /** Takes what an action needs; until {@link Holder.end} the most that is held within it. */
  start(action: Action): void;
  /** Gives back what the action does not leave behind. */
  end(action: Action): void;
  /** What would be held within the action, if it ran now, and what it would leave behind. For a holder without groups. */
  preview(action: Action): { during: number; after: number };
}

/** Sum over the categories, written out: it is asked for several times an action. */
export function totalHeld(held: Held): number {
  return held.parameters + held.gradients + held.optimizer + held.activations + held.derivatives + held.transfer +
    held.workspace;
}

/**
 * What each rank holds before its first action.
 *
 * @param grouped The same Program again; absent where the W are still to be placed, and every micro-batch counts as alone.
 * @throws {UserError} For an amount that is none, and for a W of more micro-batches than the memory model knows of.
 */
export function holdersOf(program: Program, memory: Memory, grouped?: Program): Holder[] {
  const stages = stagesOf(memory, program.stages), ways = waysOf(program);
  if (grouped) expectKnown(grouped, stages);
  const sent = (node: number) => stages[program.stage[node]].staging?.[program.kind[node] === F ? "F" : "I"] ?? 0;
  const staged = stages.some(({ staging }) => staging) ? stagedAfter(program, sent) : undefined;
  return program.schedule.actions.map((_, rank) =>
    holderOf({ program, stages, ways, staged, groups: grouped ? groupsOf(grouped, rank) : alone }, rank)
  );
}

function expectKnown({ schedule, width }: Program, stages: readonly StageMemory[]): void {
  if (width === 1 || !stages.some(({ slots }) => slots?.groups)) return;
  for (const [rank, list] of schedule.actions.entries()) {
    for (const { stage, microbatches: { length } } of list) {
      const known = (stages[stage].slots?.groups?.length ?? Infinity) + 1;
      if (length <= known) continue;
      throw new UserError(
        `The memory model knows of at most ${known} micro-batches in a W of stage ${stage}, ` +
          `and rank ${rank} of ${schedule.name} has ${length}: stageMemories takes the width`,
      );
    }
    const wide = list.find(({ stage, microbatches: { length } }) => length > 1 && stages[stage].ahead);
    if (!wide || !list.some(({ kind, stage }) => kind === "R" && stage === wide.stage)) continue;
    throw new UserError(
      `The memory model does not know what an R holds beside a W of several micro-batches, and rank ${rank} of ` +
        `${schedule.name} has both on stage ${wide.stage}: let each W take one`,
    );
  }
}

/** How a stage's activations, or its gradients, come and go: the same for every micro-batch. */
interface Way {
  /** Whether the same rank makes what comes in. */
  readonly isHanded: boolean;
  /** The stage of the same rank that its result is handed to. */
  readonly handedTo?: number;
  /** Whether what comes in is received from another rank. */
  readonly isReceived: boolean;
  /** Whether its result is sent to another rank. */
  readonly isSent: boolean;
}

const none: Way = { isHanded: false, isReceived: false, isSent: false };

/** Of each stage, how its activations (F) and its gradients (I) come and go. */
function waysOf(program: Program): Record<"F" | "I", Way>[] {
  const { stages, microbatches, stage, to, forward, backward, forwardOnly } = program;
  const wayOf = (node: number): Way => {
    const input = inputOf(program, node), output = outputOf(program, node);
    const isSent = output >= 0 && isMessage(program, output);
    return {
      isHanded: input >= 0 && !isMessage(program, input),
      isReceived: input >= 0 && isMessage(program, input),
      ...(output >= 0 && !isSent ? { handedTo: stage[to[output]] } : {}),
      isSent,
    };
  };
  return Array.from({ length: stages }, (_, stage) => ({
    F: wayOf(forward[stage * microbatches]),
    I: forwardOnly ? none : wayOf(backward[stage * microbatches]),
  }));
}

/** What a holder knows. */
interface Known {
  readonly program: Program;
  readonly stages: readonly StageMemory[];
  readonly ways: readonly Record<"F" | "I", Way>[];
  /** What the rank's messages lie in after each node; absent where nothing is said of it. */
  readonly staged: Float64Array | undefined;
  readonly groups: Groups;
}

const categoryOf = { F: "activations", I: "derivatives" } as const;

function holderOf({ program, stages, ways, staged, groups }: Known, rank: number): Holder {
  const { schedule: { placement }, microbatches, first, forward, backward, forwardOnly, ahead } = program;
  const { keyOf, sizeOf, isWhole } = groups;
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
    if (!forwardOnly) update += amounts.update ?? 0;
  }
  const { transfer: rest } = held;
  /** Of the workspace what stays from action to action: losses, and what sums over replicas need that have begun. */
  let standing = held.workspace;
  /** Of each stage the micro-batches whose stay is over. */
  const over = new Int32Array(stages.length);
  const last = first[rank + 1] - 1;
  const atEnd = totalHeld(held) + update + (staged && last >= first[rank] ? staged[last] : 0);
  /** Groups whose slabs are there: of activations and derivatives, and of inputs that are made before. */
  const slabs = { F: new Set<number>(), I: new Set<number>() };
  const inputs = { F: new Set<number>(), I: new Set<number>() };
  const shared = followShared(groups, (cell, count) => {
    const { kept = 0 } = stages[Math.floor(cell / microbatches)].shared ?? {};
    held.activations += count * kept;
  });
  /** The message that the last action sent, and those that have not been received. */
  let underway = 0, waiting = 0;

  const cellOf = ({ microbatches: [microbatch] }: Action, stage: number) => stage * microbatches + microbatch;
  const slotsAt = (cell: number, { slots }: StageMemory) => slots && sizeOf(cell) > 1 ? slots : undefined;
  const kept = (cell: number, { whole, activations }: StageMemory) =>
    isWhole(cell) ? whole ?? activations : activations;
  /** Whether the action is the first of its group there. */
  const enter = (set: Set<number>, cell: number) => set.size < set.add(keyOf(cell)).size;
  /** So much of each micro-batch, of which the first of a group takes the part in slots for all. */
  const inSlots = (amount: number, slot: number, isFirst: boolean, cell: number) =>
    amount - slot + (isFirst ? sizeOf(cell) * slot : 0);
  const inputAt = (passes: "F" | "I", cell: number, stage: StageMemory, isFirst: boolean) =>
    inSlots(stage.input?.[passes] ?? 0, slotsAt(cell, stage)?.input?.[passes] ?? 0, isFirst, cell);
  /**
   * What a backward needs more, or less, than when its model was measured, where it gives back a tensor that the stage after it
   * keeps too: a B was the last to give it back and worked in it, an I the first.
   */
  const reuse = (action: Action) => {
    const { handedTo } = ways[action.stage].F, both = handedTo !== undefined && stages[handedTo].shared;
    if (!both) return 0;
    const cell = cellOf(action, handedTo), isLast = shared.isOver(cell) && sizeOf(cell) === 1;
    if (action.kind === "I") return isLast ? -both.reused : 0;
    return isLast ? 0 : both.kept;
  };

  const holder: Holder = {
    held,
    atEnd,
    preview(action) {
      const { activations, derivatives, transfer, workspace } = held; // the others do not change
      const sent = underway, before = waiting, back = shared.mark();
      const stood = standing, ended = over[action.stage];
      holder.start(action);
      const during = totalHeld(held);
      holder.end(action);
      const after = totalHeld(held);
      Object.assign(held, { activations, derivatives, transfer, workspace });
      underway = sent;
      waiting = before;
      standing = stood;
      over[action.stage] = ended;
      back();
      return { during, after };
    },
    start(action) {
      const { kind, stage, microbatches: members } = action;
      const memory = stages[stage], cell = cellOf(action, stage);
      if (kind === "R") {
        held.activations += memory.ahead?.activations ?? 0;
        held.workspace = standing + (memory.ahead?.workspace?.R ?? 0);
        return;
      }
      held.workspace = standing + (memory.workspace?.[kind] ?? 0);
      if (kind === "W") {
        const group = memory.slots?.groups?.[members.length - 2];
        if (group) held.workspace = standing + group.W;
        return;
      }
      const passes = kind === "F" ? "F" : "I", { isHanded, isReceived, handedTo, isSent } = ways[stage][passes];
      const category = categoryOf[passes], slots = slotsAt(cell, memory);
      const isFirst = !slots || enter(slabs[passes], cell);
      if (kind === "F") held.activations += inSlots(kept(cell, memory), slots?.activations ?? 0, isFirst, cell);
      if (kind === "I") held.derivatives += inSlots(memory.derivatives, slots?.derivatives ?? 0, isFirst, cell);
      if (kind === "I" && isFirst) held.activations -= sizeOf(cell) * (slots?.moved ?? 0);
      const workspace = isFirst ? slots?.groups?.[sizeOf(cell) - 2] : slots?.workspace;
      if (workspace) held.workspace = standing + workspace[passes];
      if (isHanded) held[category] -= inputAt(passes, cell, memory, isFirst);
      if (handedTo !== undefined) {
        const its = cellOf(action, handedTo), taker = stages[handedTo];
        held[category] += inputAt(passes, its, taker, !slotsAt(its, taker) || enter(inputs[passes], its));
        if (kind === "F" && taker.shared && !forwardOnly) shared.make(its);
      }
      const instead = kind !== "F" && ahead[cell] === 1 ? memory.ahead?.workspace?.[kind] : undefined;
      if (instead !== undefined) held.workspace = standing + instead;
      if (kind !== "F") held.workspace += reuse(action);
      const message = isSent ? (memory.messages?.[passes] ?? 0) + (memory.staging?.[passes] ?? 0) : 0;
      const arriving = isReceived ? memory.arriving?.[passes] ?? 0 : 0;
      held.transfer = rest + underway + waiting + message + arriving;
    },
    end(action) {
      const { kind, stage, microbatches: members } = action;
      const memory = stages[stage], cell = cellOf(action, stage);
      const passes = kind === "F" ? "F" : "I";
      const isAlone = kind === "W" || kind === "R"; // they make nothing for another stage
      if (kind === "W" || kind === "B") {
        over[stage] += members.length;
        if (over[stage] === microbatches) standing += memory.sum ?? 0;
      }
      held.workspace = standing;
      underway = !isAlone && ways[stage][passes].isSent ? memory.messages?.[passes] ?? 0 : 0;
      if (staged && !isAlone) waiting = staged[(kind === "F" ? forward : backward)[cell]];
      held.transfer = rest + underway + waiting;
      if (kind === "R") return;
      if ((kind === "I" || kind === "B") && ahead[cell] === 1) held.activations -= memory.ahead?.activations ?? 0;
      const slots = slotsAt(cell, memory);
      const released = slots?.released ?? memory.released ?? 0;
      if (kind === "I") held.activations -= released;
      if (kind === "B" || forwardOnly) held.activations -= kept(cell, memory);
      if (kind === "W") {
        held.activations -= members.length * (memory.activations - (released + (slots?.moved ?? 0)));
        held.derivatives -= members.length * memory.derivatives;
        for (const { F, I } of [slabs, inputs]) [F, I].forEach((set) => set.delete(keyOf(cell)));
      }
      const { isHanded, handedTo } = ways[stage].F;
      if (isHanded && memory.shared && (kind === "W" || kind === "B")) {
        for (const member of members) shared.end(stage * microbatches + member);
      }
      if (handedTo !== undefined && stages[handedTo].shared && (kind === "I" || kind === "B")) {
        shared.giveBack(cellOf(action, handedTo));
      }
    },
  };
  return holder;
}
