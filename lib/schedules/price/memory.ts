import { UserError } from "../../errors.ts";
import { callback, expectValue } from "../../rules.ts";
import type { Action } from "../schedule.ts";
import { checkAmount, difference } from "./amounts.ts";

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
  /** What is different where an R runs ahead of a backward; default nothing. */
  ahead?: AheadMemory;
  /**
   * Held only while an action of that kind runs. That of I may be below 0, down to `-derivatives`: where it overwrites
   * activations, it never holds all its derivatives besides them.
   */
  workspace?: Partial<Record<Exclude<Action["kind"], "R">, number>>;
  /** The stage's input (F) and output gradient (I), counted in what F and I take: held earlier where the same rank makes them. */
  input?: { F: number; I: number };
  /** Where the same rank makes the input, what of it that stage keeps too until its I: one tensor, counted once. */
  shared?: SharedInput;
  /** Bytes of the messages to other ranks that F and I send, held until the next action of the rank has ended. */
  messages?: { F: number; I: number };
  /** Bytes that the messages of F and I to other ranks lie in until they are received, on devices that are slower than their hosts. */
  staging?: { F: number; I: number };
  /** Bytes of the buffers that what F and I receive from other ranks comes in, held while they run: of ranks in several processes. */
  arriving?: { F: number; I: number };
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
  /** Held from the stage's last W or B until the step ends, for the sum of its gradients over replicas. */
  sum?: number;
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

/** What an R holds: a backward recomputes one layer after the other, an R all of its stage's. */
export interface AheadMemory {
  /** Added to {@link StageMemory.activations} from the R until its I or B has run. */
  activations: number;
  /**
   * Held only while the R runs, 0 by default, and in place of {@link StageMemory.workspace} while an I or B runs that finds everything
   * recomputed, by default the same.
   */
  workspace?: Partial<Record<"R" | "I" | "B", number>>;
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
const signed = [
  "released",
  "workspace.I",
  "ahead.workspace.",
  "slots.released",
  "slots.moved",
  "slots.workspace.",
  "slots.groups.",
];

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
