/**
 * What a schedule is: for each rank an ordered list of actions, and nothing else. Generators make it, transforms change
 * it, the validator, the simulator and the executor read it.
 *
 * @module
 */

/**
 * Kind of an action: `F` forward; `I` input gradient (the paper's backward-p1); `W` weight gradient (backward-p2);
 * `B` full backward, that is I then W with the gradient sent only after both; `R` what the I or B of the same stage and
 * micro-batch would recompute first, run ahead of it (see `recomputeAhead`).
 */
export type Kind = "F" | "I" | "W" | "B" | "R";

/** All of them, in the order in which tables and legends have them. */
export const kinds: readonly Kind[] = ["F", "I", "W", "B", "R"];

/** One step of one rank. Only a `W` may carry several micro-batches: it then computes them as one concatenated matmul. */
export interface Action {
  /** What is computed. */
  readonly kind: Kind;
  /** Slice of the model, 0 nearest to the input. */
  readonly stage: number;
  /** Micro-batches computed, in order; exactly one unless the kind is `W`. */
  readonly microbatches: readonly number[];
}

/**
 * When the delayed weight gradients run, as people write it and tables show it: `fill` in idle slots, `end` after everything else,
 * `mid` once at half time and once at the end, `every:k` as soon as k are pending, `cap:BYTES` in idle slots but never letting a
 * rank hold more than so many bytes, `lean` in idle slots with as little memory as a heuristic finds for a step as short as with
 * `fill`, `select` in idle slots too but only those whose early input gradient shortens the step, all other backwards being whole,
 * `paper` in the order that public code of the 2BP paper's models has: one after each input gradient of the cool-down, and
 * then the rest, concatenated.
 */
export type PolicyText = "fill" | "lean" | "select" | "paper" | "end" | "mid" | `every:${number}` | `cap:${number}`;

/**
 * A pipeline schedule: who runs what, in which order. Times are not part of it: they come out of a simulation or a run. Its sizes
 * follow from its lists, see `sizesOf`.
 */
export interface Schedule {
  /** Name of the generator, or of the file it was read from. */
  readonly name: string;
  /** Rank of each stage. */
  readonly placement: readonly number[];
  /** One ordered list of actions for each rank. */
  readonly actions: readonly (readonly Action[])[];
  /** Policy that placed the weight gradients, when `twoStage()` did it. */
  readonly policy?: PolicyText;
  /**
   * By how much a step takes longer than that of the schedule that `twoStage()` was given, in the costs that it was given: 0.05
   * for 5 %. Absent where it takes no longer.
   */
  readonly slower?: number;
}

/**
 * An action in the notation of PyTorch's schedules: stage, kind, micro-batch, as in `0F3`. A W of several micro-batches
 * lists them with plus signs, `0W2+3`.
 */
export function formatAction(action: Action): string {
  return `${action.stage}${action.kind}${action.microbatches.join("+")}`;
}

/** Builds actions of one micro-batch each; for a large schedule the arrays are shared among stages. */
export function actionMaker(microbatches: number): (kind: Kind, stage: number, microbatch: number) => Action {
  const single = Array.from({ length: microbatches }, (_, microbatch) => [microbatch]);
  return (kind, stage, microbatch) => ({ kind, stage, microbatches: single[microbatch] });
}

/** Whether a value has the form of an action; schedules come from files and from JavaScript too. */
export function isAction(value: unknown): value is Action {
  return typeof value === "object" && value !== null && Array.isArray((value as Action).microbatches);
}
