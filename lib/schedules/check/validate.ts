import { UserError } from "../../errors.ts";
import { type Action, formatAction, isSplit, type Schedule } from "../schedule.ts";
import { explainDeadlock } from "./deadlock.ts";
import { isAction, walk } from "./walk.ts";

const kinds = ["F", "I", "W", "B"];

/**
 * Accepts a schedule that runs to its end and computes every micro-batch on every stage exactly once, and explains the
 * first thing that is wrong with any other: sizes, placement, counts, order, dependencies between stages, concatenation
 * rules, and deadlock with the cycle named rank by rank. Takes time linear in the number of actions. Every function that takes a
 * schedule refuses what this one refuses.
 *
 * @throws {UserError} Says where the mistake is and what would be right.
 */
export function validate(schedule: Schedule): void {
  const { isValid, position } = walk(schedule);
  if (isValid) return;
  const where = locate(schedule);
  checkMark(schedule);
  checkSources(schedule, where);
  checkOrder(schedule, where);
  throw new UserError(explainDeadlock(schedule, position));
}

function checkMark({ actions, twoStage }: Schedule): void {
  if (isSplit(actions) === twoStage) return;
  throw new UserError(
    twoStage
      ? "The schedule is marked as two-stage, but no device runs an I or a W"
      : "The schedule is marked as not two-stage, but a device runs an I or a W",
  );
}

/** For each stage and micro-batch, at `stage * M + microbatch`, the position of its actions in their rank's list, or -1. */
interface Where {
  forward: Int32Array;
  /** Of the I or the B. */
  backward: Int32Array;
  /** Of the W or the B. */
  weight: Int32Array;
}

const at = (rank: number, index: number, action: Action) => `Device ${rank}, action ${index} (${formatAction(action)})`;

function locate(schedule: Schedule): Where {
  const { stages, microbatches } = schedule;
  const table = () => new Int32Array(stages * microbatches).fill(-1);
  const where = { forward: table(), backward: table(), weight: table() };
  for (const [rank, list] of schedule.actions.entries()) {
    for (const [index, action] of list.entries()) {
      checkAction(schedule, rank, index, action);
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
      }
    }
  }
  return where;
}

function checkAction(schedule: Schedule, rank: number, index: number, action: Action): void {
  const { stages, microbatches, placement, width } = schedule;
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
  if (placement[action.stage] !== rank) fail(`stage ${action.stage} is placed on device ${placement[action.stage]}`);
  const carried = action.microbatches;
  if (carried.length === 0) fail("it carries no micro-batch");
  for (const microbatch of carried) {
    if (!Number.isInteger(microbatch) || microbatch < 0 || microbatch >= microbatches) {
      fail(`there is no micro-batch ${microbatch}; the micro-batches are 0 to ${microbatches - 1}`);
    }
  }
  if (carried.length === 1) return;
  if (action.kind !== "W") fail(`it carries ${carried.length} micro-batches; only a W may carry several`);
  if (carried.length > width) fail(`it concatenates ${carried.length} micro-batches; the schedule's width is ${width}`);
  if (new Set(carried).size < carried.length) fail("it carries a micro-batch twice");
}

function checkSources(schedule: Schedule, where: Where): void {
  const { stages, microbatches } = schedule;
  schedule.actions.forEach((list, rank) => {
    for (const action of list) {
      const { kind, stage } = action;
      if (kind === "W" || stage === (kind === "F" ? 0 : stages - 1)) continue;
      const from = kind === "F" ? stage - 1 : stage + 1;
      const [microbatch] = action.microbatches;
      if ((kind === "F" ? where.forward : where.backward)[from * microbatches + microbatch] >= 0) continue;
      throw new UserError(
        `Device ${rank} waits for the ${kind === "F" ? "activation" : "gradient"} of micro-batch ${microbatch} ` +
          `from stage ${from}, which no action sends`,
      );
    }
  });
}

function checkOrder(schedule: Schedule, { forward, backward, weight }: Where): void {
  const { stages, microbatches, placement } = schedule;
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
      if (backward[own] >= 0) needs(backward[own], forward[own], "forward", "F");
      // A B is found in both tables, at the same position.
      if (weight[own] >= 0 && weight[own] !== backward[own]) needs(weight[own], backward[own], "input gradient", "I");
      const missing = forward[own] < 0
        ? "forward"
        : backward[own] < 0
        ? "backward"
        : weight[own] < 0
        ? "weight gradient"
        : "";
      if (missing) {
        throw new UserError(`Device ${rank} never runs the ${missing} of micro-batch ${microbatch} on stage ${stage}`);
      }
    }
  }
}
