/** What a trace of a run elsewhere says: which schedule ran, when, and what its actions cost. */
import type { Rule } from "../../rules.ts";
import type { Action, Schedule } from "../../schedules/schedule.ts";

/** Times of one thing, in milliseconds: what was seen, and how far it can be trusted. */
export interface ActionTimes {
  /** Median. */
  readonly median: number;
  /** Lower and upper quartile. */
  readonly quartiles: readonly [number, number];
  /** All that was seen, in the order of the run. */
  readonly samples: readonly number[];
  /** Those of `samples` that lie more than three interquartile ranges outside the quartiles. */
  readonly outliers: readonly number[];
}

/** One action of a traced step, in milliseconds from the start of the step on the clock of rank 0. */
export interface TracedAction {
  /** What ran. */
  readonly action: Action;
  /** When the trace has it begin. */
  readonly start: number;
  /**
   * When it began to work: `start`, or when the last thing that it waited for had come, if that was later. In PyTorch's traces an
   * action stands from the call on, and its wait for a message is part of it.
   */
  readonly began: number;
  /** When it ended. */
  readonly end: number;
}

/** A message of a traced step, in milliseconds from the start of the step on the clock of rank 0. */
export interface TracedMessage {
  /** Rank that made it. */
  readonly from: number;
  /** Rank that needs it. */
  readonly to: number;
  /** An activation (`F`) or a gradient (`I`). */
  readonly what: "F" | "I";
  /** Stage that made it. */
  readonly stage: number;
  /** Its micro-batch. */
  readonly microbatch: number;
  /** When the action that made it had ended. */
  readonly sent: number;
  /** When the action that needs it began to work. */
  readonly used: number;
}

/** One step of a traced run. */
export interface TracedStep {
  /** Its mark, `ProfilerStep#3` for example, or its number where the trace has no marks. */
  readonly name: string;
  /** From its first action's start to the end of its last rank, the update included where the trace shows it. */
  readonly length: number;
  /** By rank what it ran, in that order. */
  readonly ranks: readonly (readonly TracedAction[])[];
  /** What went from rank to rank. */
  readonly messages: readonly TracedMessage[];
}

/** What the actions of a stage took, waits taken out; a kind that did not run is absent. */
export interface StageProfile {
  /** The stage. */
  readonly stage: number;
  /** Forward. */
  readonly f?: ActionTimes;
  /** Input gradient. */
  readonly i?: ActionTimes;
  /** Weight gradient, by how many micro-batches one takes. */
  readonly w?: Readonly<Record<number, ActionTimes>>;
  /** Full backward. */
  readonly b?: ActionTimes;
}

/** A run that was traced elsewhere, or here. */
export interface Profile {
  /** Who wrote the trace; `times` for a plain table of times, without steps. */
  readonly source: "torch" | "twobp" | "times";
  /** Number of ranks. */
  readonly ranks: number;
  /** What ran, in every step that is kept; absent for a plain table of times. */
  readonly schedule?: Schedule;
  /** The steps that are kept. */
  readonly steps: readonly TracedStep[];
  /** What each stage takes. */
  readonly stages: readonly StageProfile[];
  /**
   * What passing a message takes, from the end of its maker until it is there, by pair of ranks and kind: seen where somebody waited
   * for it, and absent where nobody did.
   */
  readonly messages: readonly {
    readonly from: number;
    readonly to: number;
    readonly what: "F" | "I";
    readonly time: ActionTimes;
  }[];
  /**
   * By rank what it takes from the end of an action to the beginning of the work of the next, where that waits for nobody: posting
   * sends and receives, and what the host does besides. Absent where nothing follows anything without a wait.
   */
  readonly hosts: readonly (ActionTimes | undefined)[];
  /** By rank what it takes from its last action to the end of its step, where the trace shows it. */
  readonly tails: readonly (ActionTimes | undefined)[];
  /** By rank how far its clock is ahead of rank 0's, and how far that may be wrong, in milliseconds. */
  readonly clocks: readonly { readonly ahead: number; readonly error: number }[];
  /** Steps that were left out, and why: a warm-up, or one that is not whole. */
  readonly dropped: readonly { readonly name: string; readonly why: string }[];
  /** What a reader of these times should know, in sentences: where they come from where there is a choice, and what is missing. */
  readonly notes: readonly string[];
}

/** What takes a profile asks for this. */
export const profileRule: Rule = {
  right: "a profile, as fromTrace() returns, which has to be waited for",
  accepts: (value) => typeof value === "object" && value !== null && "stages" in value && "steps" in value,
};
