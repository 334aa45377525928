/** What annotations of pipelines are called. */
import type { Action, Kind } from "../../schedules/schedule.ts";

/** An annotation of PyTorch's runtime. */
export interface NamedAction {
  /** What is computed, in order: two actions where they are overlapped, none for a transfer or an action on parameters. */
  readonly actions: readonly Action[];
  /** Its stage; of overlapped actions that of the first. */
  readonly stage: number;
  /** `F`, `SEND_F`, `REDUCE_GRAD`, `OVERLAP_F_B` ... */
  readonly what: string;
}

const one = /^(\d{1,6})(F|I|W|B|SEND_F|RECV_F|SEND_B|RECV_B|WAIT_SEND_F|WAIT_SEND_B|[A-Z][A-Z_]*)(\d{0,7})$/;
const overlapped = /^\(([^()]+)\)OVERLAP_F_B$/;

/**
 * What an annotation `PP:...` of `torch.distributed.pipelining` says: `PP:0F3`, `PP:1WAIT_SEND_B2`, `PP:0REDUCE_GRAD`,
 * `PP:(2F2;1B0)OVERLAP_F_B`. Undefined for what is none.
 */
export function parseAnnotation(name: string): NamedAction | undefined {
  if (!name.startsWith("PP:")) return undefined;
  const text = name.slice(3), pair = overlapped.exec(text);
  if (pair) {
    const actions = pair[1].split(";").map(computation);
    if (actions.length !== 2 || !actions.every((action) => action !== undefined)) return undefined;
    return { actions, stage: actions[0].stage, what: "OVERLAP_F_B" };
  }
  const match = one.exec(text);
  if (!match) return undefined;
  const [, stage, what, microbatch] = match;
  const isComputation = /^[FIWB]$/.test(what);
  if (isComputation && microbatch === "") return undefined;
  const actions = isComputation
    ? [{ kind: what as Kind, stage: Number(stage), microbatches: [Number(microbatch)] }]
    : [];
  return { actions, stage: Number(stage), what };
}

/** An action as `formatAction` writes it: `0F3`, `0W2+3`. */
export function computation(text: string): Action | undefined {
  const match = /^(\d{1,6})([FIWB])(\d{1,7}(?:\+\d{1,7})*)$/.exec(text);
  if (!match || match[2] !== "W" && match[3].includes("+")) return undefined;
  return { kind: match[2] as Kind, stage: Number(match[1]), microbatches: match[3].split("+").map(Number) };
}

/** Whether a rank does this before it computes, so that between two steps it belongs to the second. */
export function isPreparation(what: string): boolean {
  return what === "UNSHARD" || what === "RECV_F" || what === "RECV_B";
}
