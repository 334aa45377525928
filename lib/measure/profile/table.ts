/** Plain tables of times, for runs that left no trace that can be read. */
import { UserError } from "../../errors.ts";
import { described } from "../../rules.ts";
import { type Cluster, readCluster } from "../../schedules/price/cluster.ts";
import type { ActionTimes, Profile, StageProfile } from "./profile.ts";
import { actionTimes } from "./times.ts";

/** A time of a table. */
interface Row {
  readonly stage: number;
  readonly kind: "F" | "I" | "W" | "B";
  readonly width: number;
  /** Rank of the stage; the stage's number by default. */
  readonly rank?: number;
  /** In milliseconds. */
  readonly time: number;
}

/** What a table says: times one by one, or what they come to. */
export type TimesTable = { readonly rows: readonly Row[] } | { readonly cluster: Cluster };

const columns = "stage, kind and ms or us, and perhaps rank and width";

/**
 * Reads CSV with a line of names, JSON rows, or the contents of a cluster file.
 *
 * @throws {UserError} Names the line and what is wrong with it.
 */
export function readTable(table: string | readonly unknown[] | Readonly<Record<string, unknown>>): TimesTable {
  if (typeof table === "string") return { rows: csvRows(table) };
  if (!Array.isArray(table)) {
    if (!("stages" in table)) {
      throw new UserError("it has neither traceEvents nor stages, so it is neither a trace nor times");
    }
    return { cluster: readCluster(table) };
  }
  if (table.length === 0) throw new UserError("it is an empty list");
  return {
    rows: table.map((value, at) => {
      const what = `element ${at}`;
      if (Array.isArray(value)) {
        if (value.length !== 3) {
          throw new UserError(`${what} must be [stage, kind, microseconds], not ${described(value)}`);
        }
        return rowOf(what, { stage: value[0], kind: value[1], us: value[2] });
      }
      if (typeof value !== "object" || value === null) {
        throw new UserError(
          `${what} must be [stage, kind, microseconds] or an object with ${columns}, not ${described(value)}`,
        );
      }
      return rowOf(what, value as Record<string, unknown>);
    }),
  };
}

function csvRows(text: string): Row[] {
  const lines = text.replace(/^\ufeff/, "").split(/\r\n|\n|\r/).map((line, at) => ({ line: line.trim(), at }))
    .filter(({ line }) => line !== "");
  if (lines.length === 0) throw new UserError("it is empty");
  const names = lines[0].line.split(",").map((name) => name.trim().toLowerCase());
  if (!names.includes("stage") || !names.includes("kind")) {
    throw new UserError(`neither a trace nor a table of times: line 1 of a table has the names ${columns}`);
  }
  if (new Set(names).size < names.length) throw new UserError("line 1 has a name twice");
  if (lines.length === 1) throw new UserError("a table of times without times");
  return lines.slice(1).map(({ line, at }) => {
    const cells = line.split(",").map((cell) => cell.trim());
    if (cells.length !== names.length) {
      throw new UserError(`line ${at + 1} has ${cells.length} cells, and line 1 ${names.length} names`);
    }
    const value = (cell: string) => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(cell) ? Number(cell) : cell;
    return rowOf(`line ${at + 1}`, Object.fromEntries(names.map((name, index) => [name, value(cells[index])])));
  });
}

function rowOf(what: string, row: Readonly<Record<string, unknown>>): Row {
  const unknown = Object.keys(row).find((name) => !["stage", "kind", "ms", "us", "rank", "width"].includes(name));
  if (unknown !== undefined) throw new UserError(`${what}: there is no ${described(unknown)}; there are ${columns}`);
  const { stage, kind, ms, us, rank, width = 1 } = row;
  const whole = (name: string, value: unknown, least: number) => {
    if (Number.isInteger(value) && value as number >= least && value as number < 65_536) return value as number;
    throw new UserError(`${what}: ${name} must be a whole number, ${least} or more, not ${described(value)}`);
  };
  if (typeof kind !== "string" || !/^[FIWB]$/.test(kind)) {
    throw new UserError(`${what}: kind must be F, I, W or B, not ${described(kind)}`);
  }
  if (ms === undefined === (us === undefined)) throw new UserError(`${what} must have either ms or us`);
  const time = ms ?? us;
  if (typeof time !== "number" || !(time >= 0 && time < Infinity)) {
    throw new UserError(`${what}: ${ms === undefined ? "us" : "ms"} must be a time, 0 or more, not ${described(time)}`);
  }
  if (kind !== "W" && width !== 1) throw new UserError(`${what}: only a W takes several micro-batches`);
  return {
    stage: whole("stage", stage, 0),
    kind: kind as Row["kind"],
    width: whole("width", width, 1),
    ...(rank !== undefined && { rank: whole("rank", rank, 0) }),
    time: ms === undefined ? time / 1000 : time,
  };
}

/**
 * The profile of a table: costs, and no steps.
 *
 * @throws {UserError} For a stage without times, or on two ranks.
 */
export function tableProfile(table: TimesTable): Profile {
  const none = { steps: [], dropped: [], notes: [] };
  if ("cluster" in table) {
    const { ranks, stages, messages = [], hosts, tails } = table.cluster;
    const single = (value: number | null | undefined) =>
      value === null || value === undefined ? undefined : actionTimes([value]);
    return {
      source: "times",
      ranks,
      ...none,
      stages: stages.map(({ f, i, w, b }, stage) => {
        const widths = w === undefined ? [] : Object.entries(typeof w === "number" ? { 1: w } : w);
        return stageProfile(stage, {
          f: single(f),
          i: single(i),
          b: single(b),
          w: Object.fromEntries(widths.map(([width, time]) => [width, actionTimes([time])!])),
        });
      }),
      messages: messages.flatMap(({ from, to, what, time }) =>
        (what ? [what] : ["F", "I"] as const).map((each) => ({ from, to, what: each, time: actionTimes([time])! }))
      ),
      hosts: Array.from({ length: ranks }, (_, rank) => single(hosts?.[rank])),
      tails: Array.from({ length: ranks }, (_, rank) => single(tails?.[rank])),
      clocks: Array.from({ length: ranks }, () => ({ ahead: 0, error: 0 })),
    };
  }
  const byStage = new Map<number, Row[]>();
  for (const row of table.rows) {
    const list = byStage.get(row.stage) ?? [];
    byStage.set(row.stage, list);
    list.push(row);
  }
  const count = Math.max(...byStage.keys()) + 1;
  const placement = Array.from({ length: count }, (_, stage) => {
    const own = byStage.get(stage);
    if (!own) throw new UserError(`there are times of stage ${count - 1}, and none of stage ${stage}`);
    const ranks = [...new Set(own.map(({ rank = stage }) => rank))];
    if (ranks.length > 1) throw new UserError(`stage ${stage} is on rank ${ranks[0]} and on rank ${ranks[1]}`);
    return ranks[0];
  });
  const ranks = Math.max(...placement) + 1, used = new Set(placement);
  for (let rank = 0; rank < ranks; rank++) {
    if (!used.has(rank)) throw new UserError(`there are times of rank ${ranks - 1}, and none of rank ${rank}`);
  }
  const stages = placement.map((_, stage) => {
    const own = byStage.get(stage)!;
    const times = (kind: string, width = 1) =>
      actionTimes(own.filter((row) => row.kind === kind && row.width === width).map(({ time }) => time));
    const widths = new Set(own.flatMap(({ kind, width }) => kind === "W" ? width : []));
    return stageProfile(stage, {
      f: times("F"),
      i: times("I"),
      b: times("B"),
      w: Object.fromEntries([...widths].sort((a, b) => a - b).map((width) => [width, times("W", width)!])),
    });
  });
  const all = Array.from({ length: ranks }, () => undefined);
  return {
    source: "times",
    ranks,
    ...none,
    stages,
    messages: [],
    hosts: all,
    tails: all,
    clocks: Array.from({ length: ranks }, () => ({ ahead: 0, error: 0 })),
  };
}

/** A stage, its absent kinds left out. */
function stageProfile(
  stage: number,
  { f, i, w, b }: { f?: ActionTimes; i?: ActionTimes; b?: ActionTimes; w: Record<number, ActionTimes> },
): StageProfile {
  return { stage, ...(f && { f }), ...(i && { i }), ...(Object.keys(w).length > 0 && { w }), ...(b && { b }) };
}
