import { unitCosts } from "../price/costs.ts";
import { spansOf, timesOf } from "../price/simulate.ts";
import type { Program } from "../program.ts";
import { type Cell, cellOf, type Row } from "./table.ts";
import { letterOf, messageOf } from "./transfers_check.ts";

/**
 * The rows of a schedule with its transfers. Each output is sent as soon as it is made and received at that moment, by
 * unit costs; equal moments are in the same order on all ranks. So the transfers of all ranks fit into one sequence, and
 * no two of them wait for each other, even where a send blocks until it is received. A forward's WAIT_SEND follows the
 * backward of its micro-batch, which proves that the activation has arrived; a gradient's comes last. Before these stands, stage by
 * stage, REDUCE_GRAD with its wait: PyTorch, which adds it to a file without transfers, divides the gradients by the number of
 * micro-batches there, and leaves their sum without. Forward passes alone have no gradients and no backward that proves anything: their
 * WAIT_SEND come last.
 */
export function withTransfers(program: Program): Row[] {
  const { schedule: { actions, placement }, first, stage: stageOf, to: readerOf, forwardOnly } = program;
  const times = timesOf(program, unitCosts());
  const spans = spansOf(program, times.starts, times.ends);
  const timed: { time: number; isAction: boolean; order: number; cell: Omit<Cell, "column"> }[][] = actions.map(
    () => [],
  );
  const last: Omit<Cell, "column">[][] = actions.map(() => []);
  const single = (stage: number, name: string, microbatch: number) => ({ actions: [{ stage, name, microbatch }] });
  const sentForward = new Set<string>();
  let order = 0;
  for (const { action, rank, index, start, end } of spans.sort((a, b) => a.end - b.end || a.rank - b.rank)) {
    const { kind, stage, microbatches } = action;
    timed[rank].push({ time: start, isAction: true, order: order++, cell: cellOf(action) });
    const [microbatch] = microbatches;
    if ((kind === "I" || kind === "B") && sentForward.has(`${stage} ${microbatch}`)) {
      timed[rank].push({ time: end, isAction: false, order: order++, cell: single(stage, "WAIT_SEND_F", microbatch) });
    }
    const edge = messageOf(program, first[rank] + index);
    if (edge < 0) continue;
    const letter = letterOf(program, edge), reader = readerOf[edge];
    const received = single(stageOf[reader], `RECV_${letter}`, microbatch);
    timed[rank].push({ time: end, isAction: false, order, cell: single(stage, `SEND_${letter}`, microbatch) });
    timed[program.rank[reader]].push({ time: end, isAction: false, order: order++, cell: received });
    if (forwardOnly) last[rank].push(single(stage, "WAIT_SEND_F", microbatch));
    else if (kind === "F") sentForward.add(`${stage} ${microbatch}`);
    else last[rank].push(single(stage, "WAIT_SEND_B", microbatch));
  }
  return timed.map((events, rank) => {
    // At one moment transfers come first: what they bring may be used by the action that starts then.
    events.sort((a, b) => a.time - b.time || Number(a.isAction) - Number(b.isAction) || a.order - b.order);
    const stages = forwardOnly ? [] : placement.flatMap((at, stage) => at === rank ? [stage] : []);
    const ends = stages.flatMap((stage) =>
      ["REDUCE_GRAD", "WAIT_REDUCE_GRAD"].map((name) => ({ actions: [{ stage, name }] }))
    );
    const cells = [...events.map(({ cell }) => cell), ...ends, ...last[rank]].map((cell, column) => ({
      ...cell,
      column,
    }));
    return { cells, columns: cells.length };
  });
}
