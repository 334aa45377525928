/**
 * PyTorch's text form of a schedule, cell by cell: one row per rank, cells such as `0F3`, idle cells empty. This level
 * keeps everything that is written, so that reading and writing a file changes nothing; csv.ts turns it into a schedule.
 *
 * @module
 */

import { UserError } from "../../errors.ts";
import { quoted } from "../../text.ts";
import type { Action } from "../schedule.ts";

/** One action as a file writes it. */
export interface CellAction {
  /** Stage. */
  readonly stage: number;
  /** Letters between the numbers: `F`, `I`, `W`, `B`, `BW`, `SEND_F` and so on. */
  readonly name: string;
  /** Micro-batch; absent for actions on parameters, such as `UNSHARD`. */
  readonly microbatch?: number;
}

/** A cell that is not idle. */
export interface Cell {
  /** Column, from 0. */
  readonly column: number;
  /** Its action, or the actions of a group in parentheses. */
  readonly actions: readonly CellAction[];
  /**
   * What a group is: a forward and a backward that overlap, or this project's own W of several micro-batches, which
   * PyTorch rejects.
   */
  readonly group?: "OVERLAP_F_B" | "CONCAT_W";
}

/** A row: its cells from left to right, and how many columns it has, idle ones included. */
export interface Row {
  /** The cells that are not idle. */
  readonly cells: readonly Cell[];
  /** Number of columns. */
  readonly columns: number;
}

/** Actions on one micro-batch; the older files write `BW` for a full backward. */
const onMicrobatch = [
  "F",
  "I",
  "W",
  "B",
  "R",
  "BW",
  "SEND_F",
  "RECV_F",
  "SEND_B",
  "RECV_B",
  "WAIT_SEND_F",
  "WAIT_SEND_B",
];
/** Actions on the parameters of a stage, for fully sharded data parallelism. */
const onStage = ["UNSHARD", "RESHARD", "REDUCE_GRAD", "WAIT_REDUCE_GRAD"];
const groups = ["OVERLAP_F_B", "CONCAT_W"] as const;

/** More columns than a text can have, to make one number of a row and a column. */
const mostColumns = 2 ** 30;

/**
 * One number for an action on a micro-batch: a table of millions of cells is looked through several times faster by
 * numbers than by texts.
 */
export function cellKey(stage: number, name: string, microbatch: number): number {
  return (stage * onMicrobatch.length + onMicrobatch.indexOf(name)) * 1e7 + microbatch;
}

const place = (row: number, column: number) => `row ${row + 1}, column ${column + 1}`;

/** A table of keys cannot have more entries (V8's `Map`); no schedule has nearly as many. */
const mostCells = 2 ** 24 - 1;

/** More ranks than any pipeline has; a million rows would be as many devices, each of them simulated and drawn. */
const mostRows = 4096;

/**
 * Reads a file's text. Rows may differ in length and end in any way (`\n`, `\r\n`, `\r`, the last one not at all); rows
 * without an action are left out at the end of the file, where editors and spreadsheets put them.
 *
 * @throws {UserError} Names the row and the column of a cell that is no action, or an action that is there twice, and a
 * row without an action between others: whether it is a rank that does nothing, or none, nobody can tell.
 *
 * @example
 * ```ts
 * import { formatCsvTable, parseCsvTable } from "twobp/schedules";
 *
 * // A schedule has no place for cells on parameters, a table has: what it reads it writes.
 * const text = "0UNSHARD,0F0,0B0,0REDUCE_GRAD,0WAIT_REDUCE_GRAD,0RESHARD\n";
 * console.log(formatCsvTable(parseCsvTable(text)) === text); // true
 * ```
 */
export function parseTable(text: string): Row[] {
  const rows: Row[] = [];
  const seen = new Map<number, number>();
  /** Number of lines, blank ones included. */
  let lines = 0;
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  const newline = finder(text, "\n");
  const carriageReturn = finder(text, "\r");
  while (at < text.length) {
    const end = Math.min(newline(at), carriageReturn(at));
    const row = end > at ? parseRow(text, at, end, lines, seen) : undefined;
    if (row && row.cells.length > 0) {
      if (rows.length < lines) {
        throw new UserError(
          `CSV row ${rows.length + 1} has no action and row ${lines + 1} has; ` +
            "a row is a rank's, so leave no blank ones between them",
        );
      }
      if (lines === mostRows) {
        throw new UserError(`The CSV file has more than ${mostRows} rows; a schedule has one row per rank`);
      }
      rows.push(row);
    }
    lines++;
    at = end + (text[end] === "\r" && text[end + 1] === "\n" ? 2 : 1);
  }
  if (rows.length === 0) {
    throw new UserError(
      "The CSV file holds no action; a schedule has one row per rank, with cells such as 0F0 and 0B0",
    );
  }
  return rows;
}

/** Where a character comes next, from places that only grow: a file without it must not be searched again for every line. */
function finder(text: string, character: string): (from: number) => number {
  let at = -1;
  return (from) => {
    if (at < from) at = text.indexOf(character, from);
    if (at < 0) at = text.length;
    return at;
  };
}

function parseRow(text: string, start: number, end: number, row: number, seen: Map<number, number>): Row {
  const cells: Cell[] = [];
  let columns = 0;
  for (let at = start; at <= end; columns++) {
    // Not a split: a line of a hundred million commas must not become as many strings.
    let stop = at;
    while (stop < end && text.charCodeAt(stop) !== 44) stop++;
    if (stop > at) {
      const cell = parseCell(text.slice(at, stop), row, columns);
      if (cell) {
        for (const { stage, name, microbatch } of cell.actions) {
          // A stage is unsharded and resharded as often as it is used.
          if (microbatch === undefined) continue;
          const key = cellKey(stage, name, microbatch);
          const earlier = seen.get(key);
          if (earlier !== undefined) {
            const there = place(Math.floor(earlier / mostColumns), earlier % mostColumns);
            throw new UserError(`CSV ${place(row, columns)}: ${stage}${name}${microbatch} is already in ${there}`);
          }
          if (seen.size === mostCells) throw new UserError(`The CSV file has more than ${mostCells} actions`);
          seen.set(key, row * mostColumns + columns);
        }
        cells.push(cell);
      }
    }
    at = stop + 1;
  }
  return { cells, columns };
}

function parseCell(raw: string, row: number, column: number): Cell | undefined {
  const text = raw.trim().replace(/^"(.*)"$/s, "$1").trim();
  if (text === "") return undefined;
  const fail = (why: string): never => {
    throw new UserError(`CSV ${place(row, column)}: ${why}`);
  };
  if (text[0] !== "(") return { column, actions: [parseAction(text, fail)] };
  const close = text.indexOf(")");
  if (close < 0) return fail(`${quoted(text)} opens a group and does not close it`);
  const name = text.slice(close + 1);
  const group = groups.find((known) => known === name);
  if (!group) return fail(`unknown group ${quoted(name)}; the groups are ${groups.join(" and ")}`);
  const actions: CellAction[] = [];
  for (let at = 1; at <= close;) {
    // Not a split either: the first part that is no action ends it.
    let stop = text.indexOf(";", at);
    if (stop < 0 || stop > close) stop = close;
    actions.push(parseAction(text.slice(at, stop).trim(), fail));
    at = stop + 1;
  }
  checkGroup(group, actions, text, fail);
  return { column, actions, group };
}

/** The parts of a group must make up what its name says. */
function checkGroup(
  group: NonNullable<Cell["group"]>,
  actions: readonly CellAction[],
  text: string,
  fail: (why: string) => never,
): void {
  const [first, second] = actions;
  if (group === "OVERLAP_F_B") {
    if (actions.length !== 2 || first.name !== "F" || !["B", "I", "BW"].includes(second.name)) {
      fail(`${quoted(text)} must overlap one F and one backward`);
    }
    return;
  }
  if (actions.length < 2 || actions.some(({ name }) => name !== "W")) {
    fail(`${quoted(text)} must concatenate two or more W`);
  }
  const other = actions.find(({ stage }) => stage !== first.stage);
  if (other) {
    fail(`${quoted(text)} concatenates W of stages ${first.stage} and ${other.stage}; they must be of one stage`);
  }
}

function parseAction(text: string, fail: (why: string) => never): CellAction {
  const match = /^(\d+)([A-Z_]+)(\d*)$/.exec(text);
  if (!match) return fail(`${quoted(text)} is not an action; write stage, action and micro-batch, as in 2F0`);
  const [, stage, name, microbatch] = match;
  // Before anything is made of them: no table may become as large as a file claims.
  if (stage.length > 7 || microbatch.length > 7) {
    return fail(`${quoted(text)} is not an action; its numbers may have at most 7 digits`);
  }
  if (onStage.includes(name) && microbatch === "") return { stage: Number(stage), name };
  if (!onMicrobatch.includes(name)) {
    return fail(
      `unknown action ${quoted(name)} in ${quoted(text)}; the actions are ${[...onMicrobatch, ...onStage].join(", ")}`,
    );
  }
  if (microbatch === "") return fail(`${quoted(text)} names no micro-batch; write one after the action, as in 2F0`);
  return { stage: Number(stage), name, microbatch: Number(microbatch) };
}

/** An action of a schedule as a cell without its column. */
export function cellOf({ kind, stage, microbatches }: Action): Omit<Cell, "column"> {
  const actions = microbatches.map((microbatch) => ({ stage, name: kind, microbatch }));
  return actions.length > 1 ? { actions, group: "CONCAT_W" } : { actions };
}

/** Writes rows as text, each ended by a newline. */
export function formatTable(rows: readonly Row[]): string {
  const lines = rows.map(({ cells, columns }) => {
    const line: string[] = [];
    let at = 0;
    for (const { column, actions, group } of cells) {
      // A cell after idle columns: one comma for each of them.
      if (column > 0) line.push(",".repeat(column - at));
      at = column;
      const parts = actions.map(({ stage, name, microbatch }) => `${stage}${name}${microbatch ?? ""}`);
      line.push(group ? `(${parts.join(";")})${group}` : parts[0]);
    }
    if (columns - 1 > at) line.push(",".repeat(columns - 1 - at));
    return `${line.join("")}\n`;
  });
  return lines.join("");
}
