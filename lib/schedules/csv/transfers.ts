import type { Schedule } from "../schedule.ts";
import { type Cell, cellOf, type Row } from "./table.ts";
import { receiverOf, way } from "./transfers_check.ts";
import { simulate } from "../price/simulate.ts";

/**
 * The rows of a schedule with its transfers. Each output is sent as soon as it is made and received at that moment, by
 * unit costs; equal moments are in the same order on all ranks. So the transfers of all ranks fit into one sequence, and
 * no two of them wait for each other, even where a send blocks until it is received. A forward's WAIT_SEND follows the
 * backward of its micro-batch, which proves that the activation has arrived; a gradient's comes last.
 */
export function withTransfers(schedule: Schedule): Row[] {
  const { spans } = simulate(schedule);
  const timed: { time: number; isAction: boolean; order: number; cell: Omit<Cell, "column"> }[][] = schedule.actions
    .map(() => []);
  const last: Omit<Cell, "column">[][] = schedule.actions.map(() => []);
  const single = (stage: number, name: string, microbatch: number) => ({ actions: [{ stage, name, microbatch }] });
  const sentForward = new Set<string>();
  let order = 0;
  for (const { action, rank, start, end } of [...spans].sort((a, b) => a.end - b.end || a.rank - b.rank)) {
    const { kind, stage, microbatches } = action;
    timed[rank].push({ time: start, isAction: true, order: order++, cell: cellOf(action) });
    const [microbatch] = microbatches;
    if ((kind === "I" || kind === "B") && sentForward.has(`${stage} ${microbatch}`)) {
      timed[rank].push({ time: end, isAction: false, order: order++, cell: single(stage, "WAIT_SEND_F", microbatch) });
    }
    const receiver = receiverOf(action, schedule);
    if (receiver === undefined) continue;
    const to = schedule.placement[receiver];
    timed[rank].push({ time: end, isAction: false, order, cell: single(stage, `SEND_${way(action)}`, microbatch) });
    timed[to].push({
      time: end,
      isAction: false,
      order: order++,
      cell: single(receiver, `RECV_${way(action)}`, microbatch),
    });
    if (kind === "F") sentForward.add(`${stage} ${microbatch}`);
    else last[rank].push(single(stage, "WAIT_SEND_B", microbatch));
  }
  return timed.map((events, rank) => {
    // At one moment transfers come first: what they bring may be used by the action that starts then.
    events.sort((a, b) => a.time - b.time || Number(a.isAction) - Number(b.isAction) || a.order - b.order);
    const cells = [...events.map(({ cell }) => cell), ...last[rank]].map((cell, column) => ({ ...cell, column }));
    return { cells, columns: cells.length };
  });
}
