/** What can be wrong with the actions of a schedule, one by one and stage by stage. */
import { UserError } from "../../errors.ts";
import { type Action, formatAction, isAction, kinds, type Schedule } from "../schedule.ts";
import type { Sizes } from "./sizes.ts";

/** For each stage and micro-batch, at `stage * M + microbatch`, the position of its actions in their rank's list, or -1. */
export interface Where {
  forward: Int32Array;
  /** Of the I or the B. */
  backward: Int32Array;
  /** Of the W or the B. */
  weight: Int32Array;
  /** Of the R. */
  ahead: Int32Array;
}

const at = (rank: number, index: number, action: Action) => `Rank ${rank}, action ${index} (${formatAction(action)})`;

/** Where everything is, once each action is well-formed and none is there twice. */
export function locate(schedule: Schedule, sizes: Sizes): Where {
  const { stages, microbatches } = sizes;
  const table = () => new Int32Array(stages * microbatches).fill(-1);
  const where = { forward: table(), backward: table(), weight: table(), ahead: table() };
  for (const [rank, list] of schedule.actions.entries()) {
    for (const [index, action] of list.entries()) {
      checkAction(schedule, sizes, rank, index, action);
      const { kind, stage } = action;
      for (const microbatch of action.microbatches) {
        const put = (positions: Int32Array, what: string) => {
          const earlier = positions[stage * microbatches + microbatch];
          if (earlier >= 0) {
            throw new UserError(
              `${
                at(rank, index, action)
              }: the ${what} of micro-batch ${microbatch} on stage ${stage} already runs as ` +
                `action ${earlier} (${formatAction(list[earlier])})`,
            );
          }
          positions[stage * microbatches + microbatch] = index;
        };
        if (kind === "F") put(where.forward, "forward");
        if (kind === "I" || kind === "B") put(where.backward, "backward");
        if (kind === "W" || kind === "B") put(where.weight, "weight gradient");
        if (kind === "R") put(where.ahead, "recomputation");
      }
    }
  }
  return where;
}

function checkAction(
  { placement }: Schedule,
  { stages }: Sizes,
  rank: number,
  index: number,
  action: Action,
): void {
  const fail = (why: string): never => {
    throw new UserError(`${at(rank, index, action)}: ${why}`);
  };
  if (!isAction(action)) {
    throw new UserError(
      `Rank ${rank}, action ${index} is none: an action has a kind, a stage and a list of micro-batches`,
    );
  }
  if (!kinds.includes(action.kind)) fail(`unknown kind "${action.kind}"; the kinds are ${kinds.join(", ")}`);
  if (!Number.isInteger(action.stage) || action.stage < 0 || action.stage >= stages) {
    fail(`there is no stage ${action.stage}; the stages are 0 to ${stages - 1}`);
  }
  if (placement[action.stage] !== rank) fail(`stage ${action.stage} is placed on rank ${placement[action.stage]}`);
  const carried = action.microbatches;
  if (carried.length === 0) fail("it carries no micro-batch");
  for (const microbatch of carried) {
    if (!Number.isInteger(microbatch) || microbatch < 0) {
      fail(`there is no micro-batch ${microbatch}; they are whole numbers from 0`);
    }
  }
  if (carried.length === 1) return;
  if (action.kind !== "W") fail(`it carries ${carried.length} micro-batches; only a W may carry several`);
  if (new Set(carried).size < carried.length) fail("it carries a micro-batch twice");
}

/** Finds what comes before what it needs of its own stage, and what is missing. */
export function checkOrder(
  schedule: Schedule,
  { stages, microbatches }: Sizes,
  { forward, backward, weight, ahead }: Where,
): void {
  const { placement } = schedule;
  const forwardOnly = [backward, weight, ahead].every((table) => table.every((index) => index < 0));
  for (let stage = 0; stage < stages; stage++) {
    const rank = placement[stage];
    const list = schedule.actions[rank];
    for (let microbatch = 0; microbatch < microbatches; microbatch++) {
      const own = stage * microbatches + microbatch;
      const needs = (index: number, earlier: number, what: string, name: string) => {
        if (earlier >= 0 && earlier < index) return;
        const fault = earlier < 0 ? "no action runs it" : `it comes later, as action ${earlier}`;
        throw new UserError(
          `${at(rank, index, list[index])}: it needs the ${what} ${stage}${name}${microbatch} first, and ${fault}`,
        );
      };
      if (ahead[own] >= 0) needs(ahead[own], forward[own], "forward", "F");
      if (backward[own] >= 0) needs(backward[own], forward[own], "forward", "F");
      // A B is found in both tables, at the same position.
      if (weight[own] >= 0 && weight[own] !== backward[own]) needs(weight[own], backward[own], "input gradient", "I");
      if (ahead[own] >= 0 && backward[own] >= 0 && backward[own] < ahead[own]) {
        throw new UserError(
          `${at(rank, ahead[own], list[ahead[own]])}: it runs ahead what a backward recomputes, and that of the ` +
            `micro-batch is over, as action ${backward[own]} (${formatAction(list[backward[own]])})`,
        );
      }
      const missing = forward[own] < 0
        ? "forward"
        : forwardOnly
        ? ""
        : backward[own] < 0
        ? "backward"
        : weight[own] < 0
        ? "weight gradient"
        : "";
      if (missing) {
        throw new UserError(`Rank ${rank} never runs the ${missing} of micro-batch ${microbatch} on stage ${stage}`);
      }
    }
  }
}
