/**
 * PyTorch's text form of a schedule, cell by cell: one row per rank, cells such as `0F3`, idle cells empty. This level
 * keeps everything that is written, so that reading and writing a file changes nothing; csv.ts turns it into a schedule.
 *
 * @module
 */

import { UserError } from "../errors.ts";
import type { Action } from "./actions.ts";

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
const onMicrobatch = ["F", "I", "W", "B", "BW", "SEND_F", "RECV_F", "SEND_B", "RECV_B", "WAIT_SEND_F", "WAIT_SEND_B"];
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

/** A text from a file, short and without control characters. */
const shown = (text: string) => JSON.stringify(text.length > 30 ? `${text.slice(0, 30)}...` : text);

/**
 * Reads a file's text. Rows may differ in length.
 *
 * @throws {UserError} Names the row and the column of a cell that is no action, or an action that is there twice.
 */
export function parseTable(text: string): Row[] {
  const rows: Row[] = [];
  const seen = new Map<number, number>();
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  while (at < text.length) {
    let end = text.indexOf("\n", at);
    if (end < 0) end = text.length;
    rows.push(parseRow(text, at, end > at && text[end - 1] === "\r" ? end - 1 : end, rows.length, seen));
    at = end + 1;
  }
  if (rows.every((row) => row.cells.length === 0)) {
    throw new UserError(
      "The CSV file holds no action; a schedule has one row per rank, with cells such as 0F0 and 0B0",
    );
  }
  return rows;
}

function parseRow(text: string, start: number, end: number, row: number, seen: Map<number, number>): Row {
  const cells: Cell[] = [];
  let columns = 0;
  for (let at = start; at <= end && end > start; columns++) {
    // Not a split: a line of a hundred million commas must not become as many strings.
    let stop = text.indexOf(",", at);
    if (stop < 0 || stop > end) stop = end;
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
  const text = raw.trim().replace(/^"(.*)"$/, "$1").trim();
  if (text === "") return undefined;
  const fail = (why: string): never => {
    throw new UserError(`CSV ${place(row, column)}: ${why}`);
  };
  const grouped = /^\(([^()]*)\)(\w*)$/.exec(text);
  const actions = (grouped ? grouped[1].split(";") : [text]).map((part) => parseAction(part.trim(), fail));
  if (!grouped) return { column, actions };
  const group = groups.find((name) => name === grouped[2]);
  if (!group) return fail(`unknown group ${shown(grouped[2])}; the groups are ${groups.join(" and ")}`);
  const kinds = actions.map((action) => action.name).join("");
  if (group === "OVERLAP_F_B" && !/^F(B|I|BW)$/.test(kinds)) fail(`${shown(text)} must overlap one F and one backward`);
  if (group === "CONCAT_W" && !/^WW+$/.test(kinds)) fail(`${shown(text)} must concatenate two or more W`);
  return { column, actions, group };
}

function parseAction(text: string, fail: (why: string) => never): CellAction {
  const match = /^(\d{1,7})([A-Z_]+)(\d{0,7})$/.exec(text);
  if (!match) return fail(`${shown(text)} is not an action; write stage, action and micro-batch, as in 2F0`);
  const [, stage, name, microbatch] = match;
  if (onStage.includes(name) && microbatch === "") return { stage: Number(stage), name };
  if (!onMicrobatch.includes(name)) {
    return fail(
      `unknown action ${shown(name)} in ${shown(text)}; the actions are ${[...onMicrobatch, ...onStage].join(", ")}`,
    );
  }
  if (microbatch === "") return fail(`${shown(text)} names no micro-batch; write one after the action, as in 2F0`);
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
