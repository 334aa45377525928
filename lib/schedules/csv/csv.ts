import { UserError } from "../../errors.ts";
import { expectValue, oneOf, string } from "../../rules.ts";
import type { Action, Kind, Schedule } from "../schedule.ts";
import { cellOf, formatTable, parseTable, type Row } from "./table.ts";
import { withTransfers } from "./transfers.ts";
import { checkTransfers } from "./transfers_check.ts";
import { lower } from "../program.ts";

/** What a caller knows about a file. */
export interface FromCsvOptions {
  /** Name of the schedule; default `csv`. */
  name?: string;
  /** Number of rows to expect. */
  devices?: number;
}

/**
 * Reads a schedule from PyTorch's CSV, compute-only or with SEND and RECV cells, with today's letters (`I` input gradient,
 * `W` weight gradient, `B` full backward, and our own `R` for what is recomputed ahead) or the older ones (`B` input gradient, `W`, `BW` full). Which stage runs where
 * comes out of the file. An overlapped pair becomes its forward and then its backward. Cells on parameters (`UNSHARD`,
 * `REDUCE_GRAD`) are left out, and so are rows without an action at the end; `parseCsvTable()` keeps every cell.
 *
 * @throws {UserError} For a cell that is no action, a row without one between others, whatever `validate()` finds, and
 * transfers that do not match, hang or swap messages where each waits for its partner in the order written.
 *
 * @example
 * ```ts
 * import { fromCsv } from "twobp";
 *
 * const schedule = fromCsv("0F0,0F1,,0I0,0W0,0I1,0W1\n,1F0,1B0,1F1,1B1\n");
 * console.log(schedule.placement, schedule.actions[0].length); // [ 0, 1 ] 6
 * ```
 */
export function fromCsv(text: string, { name = "csv", devices }: FromCsvOptions = {}): Schedule {
  expectValue("A CSV", text, string);
  const rows = parseTable(text);
  if (devices !== undefined && rows.length !== devices) {
    throw new UserError(`The CSV file has ${rows.length} rows for ${devices} ranks; it needs one for each`);
  }
  const kindOf = letters(rows);
  const placement = placementOf(rows);
  const actions = rows.map(({ cells }) => {
    const list: Action[] = [];
    for (const { actions, group } of cells) {
      if (group === "CONCAT_W") {
        list.push({ kind: "W", stage: actions[0].stage, microbatches: actions.map((action) => action.microbatch!) });
        continue;
      }
      for (const { stage, name, microbatch } of actions) {
        const kind = kindOf(name);
        if (kind) list.push({ kind, stage, microbatches: [microbatch!] });
      }
    }
    return list;
  });
  const schedule = { name, placement, actions };
  checkTransfers(rows, lower(schedule));
  return schedule;
}

/**
 * What the letters mean. A W belongs to an input gradient, so a file with W and without I writes B for it, and only
 * there is a full backward BW.
 */
function letters(rows: readonly Row[]): (name: string) => Kind | undefined {
  const names = new Set<string>();
  for (const { cells } of rows) for (const { actions } of cells) for (const { name } of actions) names.add(name);
  const old = names.has("BW") || (names.has("W") && !names.has("I"));
  if (old && names.has("I")) {
    throw new UserError(
      "The CSV file mixes today's letters (I, W, B for a full backward) with the older ones (B, W, BW)",
    );
  }
  const kinds: Record<string, Kind> = old
    ? { F: "F", B: "I", W: "W", BW: "B" }
    : { F: "F", I: "I", W: "W", B: "B", R: "R" };
  return (name) => kinds[name];
}

function placementOf(rows: readonly Row[]): number[] {
  const ranks = new Map<number, number>();
  rows.forEach(({ cells }, rank) => {
    for (const { column, actions } of cells) {
      for (const { stage } of actions) {
        const other = ranks.get(stage) ?? rank;
        if (other !== rank) {
          throw new UserError(
            `CSV row ${rank + 1}, column ${column + 1}: stage ${stage} already runs in row ${other + 1}; ` +
              "all actions of a stage belong in one row",
          );
        }
        ranks.set(stage, rank);
      }
    }
  });
  return Array.from({ length: ranks.size }, (_, stage) => {
    const rank = ranks.get(stage);
    if (rank === undefined) {
      let last = 0;
      for (const each of ranks.keys()) last = Math.max(last, each);
      throw new UserError(`The CSV file has actions of stage ${last}, but none of stage ${stage}`);
    }
    return rank;
  });
}

/** How to write a schedule. */
export interface ToCsvOptions {
  /**
   * Adds what PyTorch's `compute_comms` has: SEND and RECV, a WAIT_SEND for each SEND, UNSHARD, REDUCE_GRAD with its wait
   * and RESHARD for each stage, as PyTorch 2.15 asks for them. Without, which is what every version reads, PyTorch adds its
   * own.
   */
  transfers?: boolean;
  /**
   * Who reads it. `twobp`, the default, keeps everything: a W of several micro-batches is one cell, `(0W0;0W1)CONCAT_W`,
   * which PyTorch rejects. For `torch` each of its micro-batches is a W of its own, one after the other: the same gradients
   * at the same places, without what one kernel for all of them saves. PyTorch knows no R either, and a backward there recomputes
   * by itself: they are left out.
   */
  for?: "twobp" | "torch";
}

/**
 * Writes a schedule as PyTorch's CSV, with today's letters; reading it back gives the same actions, but for a W of several
 * micro-batches `for: "torch"`, which has no such W.
 *
 * @throws {UserError} For a rank without an action, whose row would be a blank one.
 */
export function toCsv(schedule: Schedule, { transfers = false, for: reader = "twobp" }: ToCsvOptions = {}): string {
  expectValue("for", reader, oneOf(["twobp", "torch"]));
  const program = lower(reader === "torch" ? withKindsOfTorch(schedule) : schedule);
  const { actions } = program.schedule;
  const idle = actions.findIndex((list) => list.length === 0);
  if (idle >= 0) throw new UserError(`Rank ${idle} runs no action; a CSV file has a row for each rank, and none blank`);
  if (transfers) return formatTable(withTransfers(program));
  return formatTable(actions.map((list) => ({
    columns: list.length,
    cells: list.map((action, column) => ({ column, ...cellOf(action) })),
  })));
}

/** Each W of several micro-batches as so many W in a row, and no R. */
function withKindsOfTorch(schedule: Schedule): Schedule {
  const actions = schedule.actions.map((list) =>
    list.filter(({ kind }) => kind !== "R").flatMap((action) =>
      action.microbatches.length > 1
        ? action.microbatches.map((microbatch) => ({ ...action, microbatches: [microbatch] }))
        : [action]
    )
  );
  return { ...schedule, actions };
}
