import { unitCosts } from "../price/costs.ts";
import { spansOf, timesOf } from "../price/simulate.ts";
import type { Program } from "../program.ts";
import type { Action } from "../schedule.ts";
import { type Cell, cellOf, type Row } from "./table.ts";
import { letterOf, messageOf } from "./transfers_check.ts";

/**
 * The rows of a schedule with its transfers. Each output is sent as soon as it is made and received at that moment, by
 * unit costs; equal moments are in the same order on all ranks. So the transfers of all ranks fit into one sequence, and
 * no two of them wait for each other, even where a send blocks until it is received. A forward's WAIT_SEND follows the
 * backward of its micro-batch, which proves that the activation has arrived; a gradient's comes last. Of
 * forward passes alone no backward proves anything: their WAIT_SEND come last.
 *
 * Actions on parameters stand where PyTorch puts them by default: UNSHARD of each stage first, in the order of use, and
 * after the last W or B of a stage, behind what that sends, REDUCE_GRAD with its wait and RESHARD. In REDUCE_GRAD PyTorch
 * divides the gradients by the number of micro-batches: without, their sum is left, and nothing says so. UNSHARD and
 * RESHARD are for stages of fully sharded parameters; others pass over them.
 */
export function withTransfers(program: Program): Row[] {
  const { schedule: { actions }, first, stage: stageOf, to: readerOf, forwardOnly } = program;
  const times = timesOf(program, unitCosts());
  const spans = spansOf(program, times.starts, times.ends);
  const timed: { time: number; turn: number; order: number; cell: Omit<Cell, "column"> }[][] = actions.map(() => []);
  const last: Omit<Cell, "column">[][] = actions.map(() => []);
  const single = (stage: number, name: string, microbatch?: number) => ({ actions: [{ stage, name, microbatch }] });
  const sentForward = new Set<string>();
  /** Of each stage its last action, which is a W or a B (both need the F, and the W its I), or an F where there are no others. */
  const lastOf = new Map<number, Action>();
  for (const list of actions) for (const action of list) lastOf.set(action.stage, action);
  let order = 0;
  for (const { action, rank, index, start, end } of spans.sort((a, b) => a.end - b.end || a.rank - b.rank)) {
    const { kind, stage, microbatches } = action;
    timed[rank].push({ time: start, turn: ACTION, order: order++, cell: cellOf(action) });
    const [microbatch] = microbatches;
    if ((kind === "I" || kind === "B") && sentForward.has(`${stage} ${microbatch}`)) {
      timed[rank].push({ time: end, turn: TRANSFER, order: order++, cell: single(stage, "WAIT_SEND_F", microbatch) });
    }
    if (lastOf.get(stage) === action) {
      for (const name of forwardOnly ? ["RESHARD"] : ["REDUCE_GRAD", "WAIT_REDUCE_GRAD", "RESHARD"]) {
        timed[rank].push({ time: end, turn: PARAMETERS, order: order++, cell: single(stage, name) });
      }
    }
    const edge = messageOf(program, first[rank] + index);
    if (edge < 0) continue;
    const letter = letterOf(program, edge), reader = readerOf[edge];
    const received = single(stageOf[reader], `RECV_${letter}`, microbatch);
    timed[rank].push({ time: end, turn: TRANSFER, order, cell: single(stage, `SEND_${letter}`, microbatch) });
    timed[program.rank[reader]].push({ time: end, turn: TRANSFER, order: order++, cell: received });
    if (forwardOnly) last[rank].push(single(stage, "WAIT_SEND_F", microbatch));
    else if (kind === "F") sentForward.add(`${stage} ${microbatch}`);
    else last[rank].push(single(stage, "WAIT_SEND_B", microbatch));
  }
  return timed.map((events, rank) => {
    events.sort((a, b) => a.time - b.time || a.turn - b.turn || a.order - b.order);
    const used = new Set(actions[rank].map(({ stage }) => stage));
    const unsharded = [...used].map((stage) => single(stage, "UNSHARD"));
    const cells = [...unsharded, ...events.map(({ cell }) => cell), ...last[rank]];
    return { cells: cells.map((cell, column) => ({ ...cell, column })), columns: cells.length };
  });
}

/** At one moment transfers come first: what they bring may be used by the action that starts then. */
const TRANSFER = 0, PARAMETERS = 1, ACTION = 2;
