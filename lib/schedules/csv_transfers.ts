import { UserError } from "../errors.ts";
import { type Action, formatAction, type Schedule } from "./actions.ts";
import { type Cell, type CellAction, cellKey, cellOf, type Row } from "./csv_table.ts";
import { simulate } from "./simulate.ts";

/** Where the output of an action goes: the stage that needs it, or undefined where nobody or the same rank does. */
function receiverOf({ kind, stage }: Action, { stages, placement }: Schedule): number | undefined {
  if (kind === "W") return undefined;
  const receiver = kind === "F" ? stage + 1 : stage - 1;
  return receiver < 0 || receiver >= stages || placement[receiver] === placement[stage] ? undefined : receiver;
}

const isTransfer = (name: string) => name.startsWith("SEND_") || name.startsWith("RECV_");
const letter = ({ kind }: Action) => kind === "F" ? "F" : "B";

/**
 * Checks the SEND and RECV cells of a file that has any: each output that another rank needs is sent once after it is
 * made, received once before it is used, and nothing else is.
 *
 * @throws {UserError} Names the transfer that is missing, misplaced or superfluous.
 */
export function checkTransfers(rows: readonly Row[], schedule: Schedule): void {
  let found = 0;
  for (const { cells } of rows) {
    for (const { actions } of cells) for (const { name } of actions) if (isTransfer(name)) found++;
  }
  if (found === 0) return;
  /** Where in its row an action is. */
  const order = new Map<number, number>();
  for (const { cells } of rows) {
    let count = 0;
    for (const { actions } of cells) {
      for (const { stage, name, microbatch } of actions) {
        // Either spelling of a backward makes the gradient.
        const spelt = name === "I" || name === "BW" ? "B" : name;
        if (microbatch !== undefined) order.set(cellKey(stage, spelt, microbatch), count++);
      }
    }
  }
  for (const action of schedule.actions.flat()) {
    const receiver = receiverOf(action, schedule);
    if (receiver === undefined) continue;
    const [microbatch] = action.microbatches;
    const [from, to] = [schedule.placement[action.stage], schedule.placement[receiver]];
    const way = letter(action);
    const what = `the ${
      way === "F" ? "activation" : "gradient"
    } of micro-batch ${microbatch} from stage ${action.stage}`;
    const sent = order.get(cellKey(action.stage, `SEND_${way}`, microbatch));
    const received = order.get(cellKey(receiver, `RECV_${way}`, microbatch));
    const send = () => `${action.stage}SEND_${way}${microbatch}`;
    const receive = () => `${receiver}RECV_${way}${microbatch}`;
    if (sent === undefined) {
      throw new UserError(`Device ${to} waits for ${what}, which device ${from} never sends: ${send()} is missing`);
    }
    if (received === undefined) throw new UserError(`Device ${to} never receives ${what}: ${receive()} is missing`);
    if (sent < order.get(cellKey(action.stage, way, microbatch))!) {
      throw new UserError(
        `Device ${from} sends ${what} before it is made: ${send()} must come after ${formatAction(action)}`,
      );
    }
    if (received > order.get(cellKey(receiver, way, microbatch))!) {
      throw new UserError(`Device ${to} receives ${what} after it is used: ${receive()} must come earlier`);
    }
    found -= 2;
  }
  if (found === 0) return;
  for (const { cells } of rows) {
    for (const { actions } of cells) {
      for (const action of actions) superfluous(action, schedule);
    }
  }
}

function superfluous({ stage, name, microbatch }: CellAction, schedule: Schedule): void {
  const [, direction, kind] = /^(SEND|RECV)_([FB])$/.exec(name) ?? [];
  if (!direction) return;
  const step = (kind === "F") === (direction === "SEND") ? 1 : -1;
  const peer = schedule.placement[stage + step];
  if (peer !== undefined && peer !== schedule.placement[stage]) return;
  const why = peer === undefined ? `there is no stage ${stage + step}` : `stage ${stage + step} is on the same device`;
  throw new UserError(`${stage}${name}${microbatch} has no partner: ${why}`);
}

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
    timed[rank].push({ time: end, isAction: false, order, cell: single(stage, `SEND_${letter(action)}`, microbatch) });
    timed[to].push({
      time: end,
      isAction: false,
      order: order++,
      cell: single(receiver, `RECV_${letter(action)}`, microbatch),
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
