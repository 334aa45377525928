/**
 * Whether the SEND and RECV cells of a file carry every output to where it is used, and whether they would run.
 *
 * PyTorch's runtime (`_PipelineScheduleRuntime`) posts each SEND and RECV cell as one operation and goes on; an action
 * waits for what its RECV brings, a WAIT_SEND or the end of the step for the sends. But NCCL runs the operations of a rank
 * one after the other in the order in which they were posted, each until both sides have come, and there are no tags: a
 * SEND meets the next RECV of the other rank, whatever that is called. What an action computes leaves its rank only by a
 * later cell, so a rank may as well be taken to stand still in every cell until it is done. Hence the rule: **blocking, in
 * the order written, first in, first out**. PyTorch's own files keep it, since it writes each RECV at the moment of its
 * SEND, which fits the transfers of all ranks into one sequence. (Gloo buffers what is sent and needs only the order
 * between two ranks, which this rule implies.)
 *
 * @module
 */

import { UserError } from "../../errors.ts";
import { ACTIVATION, isMessage, outputOf, type Program } from "../program.ts";
import { formatAction } from "../schedule.ts";
import { type CellAction, cellKey, type Row } from "./table.ts";

/** Letter of the transfer of what passes along an edge. */
export const letterOf = ({ what }: Program, edge: number): "F" | "B" => what[edge] === ACTIVATION ? "F" : "B";

/** The message that an action sends, or -1 where nobody needs its output or the same rank does. */
export function messageOf(program: Program, node: number): number {
  const edge = outputOf(program, node);
  return edge >= 0 && isMessage(program, edge) ? edge : -1;
}

/** What a transfer's partner is called. */
const partners: Readonly<Record<string, string>> = {
  SEND_F: "RECV_F",
  RECV_F: "SEND_F",
  SEND_B: "RECV_B",
  RECV_B: "SEND_B",
};

/** By the name of a transfer and its stage, the stage of its partner, the same for all micro-batches; -1 at the ends of the pipeline. */
function partnerStages(
  { stages, microbatches, stage, forward, backward, output, to }: Program,
): Record<string, Int32Array> {
  const none = () => new Int32Array(stages).fill(-1);
  const found = { SEND_F: none(), RECV_F: none(), SEND_B: none(), RECV_B: none() };
  for (let from = 0; from < stages; from++) {
    for (const [letter, nodes] of [["F", forward], ["B", backward]] as const) {
      const node = nodes[from * microbatches], edge = node < 0 ? -1 : output[node];
      if (edge < 0) continue;
      found[`SEND_${letter}`][from] = stage[to[edge]];
      found[`RECV_${letter}`][stage[to[edge]]] = from;
    }
  }
  return found;
}

const isTransfer = ({ name }: CellAction) => Object.hasOwn(partners, name);
const isWait = ({ name }: CellAction) => name.startsWith("WAIT_SEND");
const text = ({ stage, name, microbatch }: CellAction) => `${stage}${name}${microbatch}`;

function* actionsOf(rows: readonly Row[]): Generator<CellAction> {
  for (const { cells } of rows) for (const { actions } of cells) yield* actions;
}

/**
 * Checks the transfers of a file that has any: each output that another rank needs is sent once after it is made,
 * received once before it is used, and nothing else is; and run as PyTorch does, they neither hang nor swap messages.
 *
 * @throws {UserError} Names the transfer that is missing, misplaced or superfluous, the two that would meet although they
 * carry different messages, or the cycle of ranks that wait for each other.
 */
export function checkTransfers(rows: readonly Row[], program: Program): void {
  let transfers = 0;
  let waits = 0;
  for (const action of actionsOf(rows)) {
    if (isTransfer(action)) transfers++;
    else if (isWait(action)) waits++;
  }
  if (transfers + waits === 0) return;
  const order = orderOf(rows);
  if (transfers > 0) checkPairs(order, transfers, rows, program);
  if (waits > 0) checkWaits(order, rows);
  if (transfers > 0) rendezvous(rows, program);
}

/** Where in its row each action is, by `cellKey`; either spelling of a backward makes the gradient. */
function orderOf(rows: readonly Row[]): Map<number, number> {
  const order = new Map<number, number>();
  for (const { cells } of rows) {
    let count = 0;
    for (const { actions } of cells) {
      for (const { stage, name, microbatch } of actions) {
        const spelt = name === "I" || name === "BW" ? "B" : name;
        if (microbatch !== undefined) order.set(cellKey(stage, spelt, microbatch), count++);
      }
    }
  }
  return order;
}

function checkPairs(
  order: ReadonlyMap<number, number>,
  found: number,
  rows: readonly Row[],
  program: Program,
): void {
  const { schedule: { actions }, first, rank } = program;
  for (const [from, list] of actions.entries()) {
    for (const [index, action] of list.entries()) {
      const edge = messageOf(program, first[from] + index);
      if (edge < 0) continue;
      const { stage, microbatches: [microbatch] } = action;
      const letter = letterOf(program, edge), reader = program.to[edge];
      const to = rank[reader], receiver = program.stage[reader];
      const what = () =>
        `the ${letter === "F" ? "activation" : "gradient"} of micro-batch ${microbatch} from stage ${stage}`;
      const send = () => text({ stage, name: `SEND_${letter}`, microbatch });
      const receive = () => text({ stage: receiver, name: `RECV_${letter}`, microbatch });
      const sent = order.get(cellKey(stage, `SEND_${letter}`, microbatch));
      const received = order.get(cellKey(receiver, `RECV_${letter}`, microbatch));
      if (sent === undefined) {
        throw new UserError(`Rank ${to} waits for ${what()}, which rank ${from} never sends: ${send()} is missing`);
      }
      if (received === undefined) throw new UserError(`Rank ${to} never receives ${what()}: ${receive()} is missing`);
      if (sent < order.get(cellKey(stage, letter, microbatch))!) {
        throw new UserError(
          `Rank ${from} sends ${what()} before it is made: ${send()} must come after ${formatAction(action)}`,
        );
      }
      if (received > order.get(cellKey(receiver, letter, microbatch))!) {
        throw new UserError(`Rank ${to} receives ${what()} after it is used: ${receive()} must come earlier`);
      }
      found -= 2;
    }
  }
  if (found === 0) return;
  const stageOf = partnerStages(program);
  for (const action of actionsOf(rows)) if (isTransfer(action)) checkPartner(action, stageOf, program);
}

function checkPartner(action: CellAction, stageOf: Record<string, Int32Array>, program: Program): void {
  const { stages, schedule: { placement } } = program, stage = stageOf[action.name][action.stage];
  if (stage >= 0 && placement[stage] !== placement[action.stage]) return;
  const beyond = action.name === "SEND_F" || action.name === "RECV_B" ? stages : -1;
  const why = stage < 0 ? `there is no stage ${beyond}` : `stage ${stage} is on the same rank`;
  throw new UserError(`${text(action)} has no partner: ${why}`);
}

/** A WAIT_SEND waits for a send that was posted. */
function checkWaits(order: ReadonlyMap<number, number>, rows: readonly Row[]): void {
  for (const action of actionsOf(rows)) {
    if (!isWait(action)) continue;
    const { stage, name, microbatch } = action;
    const send = { stage, name: name.slice("WAIT_".length), microbatch };
    const sent = order.get(cellKey(stage, send.name, microbatch!));
    if (sent === undefined) throw new UserError(`${text(action)} waits for ${text(send)}, which is missing`);
    if (sent > order.get(cellKey(stage, name, microbatch!))!) {
      throw new UserError(`${text(action)} waits for ${text(send)}, which comes only later`);
    }
  }
}

/** Runs the transfers, each rank standing still in each of them until its partner has come. */
function rendezvous(rows: readonly Row[], program: Program): void {
  const { placement } = program.schedule;
  /** The cell at which each rank stands: of a transfer, or past the last. */
  const position = new Int32Array(rows.length);
  // Groups hold no transfers.
  const at = (rank: number): CellAction | undefined => rows[rank].cells[position[rank]]?.actions[0];
  const stageOf = partnerStages(program);
  const partnerOf = ({ stage, name, microbatch }: CellAction): CellAction => ({
    stage: stageOf[name][stage],
    name: partners[name],
    microbatch,
  });
  const peerOf = ({ stage, name }: CellAction) => placement[stageOf[name][stage]];
  const place = (rank: number) => `row ${rank + 1}, column ${rows[rank].cells[position[rank]].column + 1}`;
  const proceed = (rank: number) => {
    for (;;) {
      const action = at(rank);
      if (!action || isTransfer(action)) return;
      position[rank]++;
    }
  };
  rows.forEach((_, rank) => proceed(rank));
  const ready = rows.map((_, rank) => rank);
  while (ready.length > 0) {
    const rank = ready.pop()!;
    for (;;) {
      const mine = at(rank);
      if (!mine) break;
      const peer = peerOf(mine);
      const theirs = at(peer);
      const sends = mine.name.startsWith("SEND");
      if (!theirs || peerOf(theirs) !== rank || theirs.name.startsWith("SEND") === sends) break;
      const { stage, name, microbatch } = partnerOf(mine);
      if (theirs.name !== name || theirs.stage !== stage || theirs.microbatch !== microbatch) {
        const [from, to] = sends ? [rank, peer] : [peer, rank];
        throw new UserError(
          `Rank ${to} would take one message for another: it receives ${text(at(to)!)} (${
            place(to)
          }) when rank ${from} ` +
            `sends ${text(at(from)!)} (${place(from)}); what one rank sends to another arrives in the order it is sent`,
        );
      }
      for (const each of [rank, peer]) {
        position[each]++;
        proceed(each);
      }
      ready.push(peer);
    }
  }
  const stuck = rows.findIndex((_, rank) => at(rank));
  if (stuck < 0) return;
  // A rank that stands still waits for one that does: of a pair that is there, neither side is done without the other.
  const seen = new Set<number>();
  let rank = stuck;
  for (; !seen.has(rank); rank = peerOf(at(rank)!)) seen.add(rank);
  const cycle = [...seen].slice([...seen].indexOf(rank));
  const links = cycle.map((each) => {
    const action = at(each)!;
    const peer = peerOf(action);
    return `rank ${each} waits at ${text(action)} (${place(each)}) for ${text(partnerOf(action))}, ` +
      `which rank ${peer} runs only after ${text(at(peer)!)}`;
  });
  throw new UserError(`Deadlock between transfers, each of which waits for its partner: ${links.join("; ")}`);
}
