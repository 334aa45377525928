import { readFileSync, type Stats, statSync } from "node:fs";
import { basename, extname } from "node:path";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { fromCsv } from "../schedules/csv/csv.ts";
import { generate, scheduleNames } from "../schedules/generators/generate.ts";
import { lower } from "../schedules/program.ts";
import { quoted, shown } from "../text.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { splitStages } from "../schedules/transforms/split_stages.ts";
import { pairOf, type SchedulePair, usualTwoStage } from "../schedules/transforms/pair.ts";

/** Sizes asked for on the command line; absent where a flag is. */
export interface Sizes {
  /** The ranks: of `--devices` those of one replica. */
  devices?: number;
  /** `--replicas`, for messages. */
  replicas?: number;
  /** `--microbatches`. */
  microbatches?: number;
  /** `--chunks`. */
  chunks?: number;
  /** `--split-stages`. */
  splitStages?: number;
}

/** A schedule of 256 devices and 2,048 micro-batches with its transfers has about 50 MB. */
const mostBytes = 64 * 2 ** 20;

/**
 * The schedule that a command line names: of a generator, on 4 devices unless said otherwise, or in a CSV file, whose own
 * sizes then hold; its stages cut into ranges where that is asked for.
 *
 * @throws {UserError} For a name that is neither, sizes that do not fit, and a file that is no schedule.
 */
export function loadSchedule(name: string, sizes: Sizes): Schedule {
  const { splitStages: ranges = 1 } = sizes, schedule = wholeStages(name, sizes);
  return ranges === 1 ? schedule : splitStages(schedule, ranges);
}

/** {@link loadSchedule}, its stages as they are. */
function wholeStages(name: string, sizes: Sizes): Schedule {
  const { devices, microbatches, chunks } = sizes;
  if (scheduleNames.includes(name)) return generate(name, { devices: devices ?? 4, microbatches, chunks });
  const path = shown(name);
  const stat = statOf(name);
  if (!stat) {
    const isPath = /[/\\]|\.csv$/i.test(name);
    throw new UserError(
      isPath
        ? `There is no file ${path}`
        : `Unknown schedule ${quoted(name)}, and no file of that name; the schedules are ${scheduleNames.join(", ")}`,
    );
  }
  if (!stat.isFile()) throw new UserError(`${path} is not a file; give a schedule's CSV file`);
  if (stat.size > mostBytes) {
    throw new UserError(
      `${path} has ${Math.ceil(stat.size / 2 ** 20)} MiB; a schedule has at most ${mostBytes / 2 ** 20} MiB`,
    );
  }
  if (sizes.chunks !== undefined) throw new UserError("--chunks is for a generator; a CSV file has its own stages");
  let text: string;
  try {
    text = readFileSync(name, "utf8");
  } catch (error) {
    throw new UserError(`Cannot read ${path}: ${fileProblem(error)}`);
  }
  const schedule = parsed(text, name);
  expectRanks(schedule, path, sizes);
  const { microbatches: own } = sizesOf(schedule);
  if (microbatches !== undefined && microbatches !== own) {
    throw new UserError(`${path} has ${own} micro-batches, not ${microbatches}`);
  }
  return schedule;
}

/** @throws {UserError} Where a file is for another number of ranks than are asked for. */
function expectRanks({ actions: { length: own } }: Schedule, path: string, { devices = own, replicas = 1 }: Sizes) {
  if (own === devices) return;
  const ranks = (count: number) => `${count} rank${count === 1 ? "" : "s"}`;
  const asked = replicas === 1
    ? `${ranks(devices)} ${devices === 1 ? "is" : "are"} asked for`
    : `${devices * replicas} devices in ${replicas} replicas make ${ranks(devices)} each`;
  throw new UserError(
    `${path} is a schedule of ${ranks(own)}, a row for each, and ${asked}: give --devices ${
      own * replicas
    }, or leave it out`,
  );
}

/** The schedule of a file's text; a command may take several files, so what is wrong says with which. */
function parsed(text: string, file: string): Schedule {
  try {
    // The name goes into titles, tables and drawings.
    return fromCsv(text, { name: shown(basename(file, extname(file))) });
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(`${shown(file)}: ${error.message}`, { cause: error });
  }
}

/** What a path leads to; a name that no file can have, too long or with a NUL, leads nowhere. */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code === "ENAMETOOLONG" || code === "ERR_INVALID_ARG_VALUE") return undefined;
    throw new UserError(`Cannot read ${shown(path)}: ${message}`);
  }
}

/**
 * The schedules of a command, in the order of their names: for `devices` ranks, or where that is left out for as many as the first
 * CSV file among them has rows, or else for `usual`; as `of` has them.
 *
 * @throws {UserError} As {@link loadSchedule}; for two of the same name, files of other numbers of rows, and one of forward passes alone.
 */
export function loadSchedules(
  names: readonly string[],
  devices: number | undefined,
  usual: number,
  of: Pick<Sizes, "replicas" | "splitStages"> = {},
): Schedule[] {
  const files = names.filter((name) => !scheduleNames.includes(name));
  const read = new Map(files.map((name) => [name, loadSchedule(name, { ...of, devices })]));
  for (const [name, schedule] of read) {
    if (!lower(schedule).forwardOnly) continue;
    throw new UserError(`${shown(name)}: it runs forward passes alone; what trains needs the backward passes too`);
  }
  const [first] = read.values();
  const count = devices ?? first?.actions.length ?? usual;
  const schedules = names.map((name) => read.get(name) ?? loadSchedule(name, { ...of, devices: count }));
  for (const [index, { name, actions }] of schedules.entries()) {
    if (actions.length !== count) {
      throw new UserError(
        `${first.name} is for ${count} ranks, and ${name} for ${actions.length}: run them one at a time`,
      );
    }
    if (schedules.findIndex((other) => other.name === name) < index) {
      throw new UserError(`Two schedules are called ${name}, and no table could tell them apart: rename the file`);
    }
  }
  return schedules;
}

/** The CSV files among a command's schedules, each with its number of rows, the ranks it is for. */
export function rowsOfFiles(names: readonly string[]): Map<string, number> {
  const files = names.filter((name) => !scheduleNames.includes(name));
  return new Map(files.map((name) => [name, loadSchedule(name, {}).actions.length]));
}

/** The pairs without and with 2BP of a command's schedules, see {@link loadSchedules}, each changed by `prepare` before it is split. */
export function loadPairs(
  names: readonly string[],
  devices: number | undefined,
  usual: number,
  prepare = (schedule: Schedule): Schedule => schedule,
  of: Pick<Sizes, "replicas" | "splitStages"> = {},
): SchedulePair[] {
  return loadSchedules(names, devices, usual, of).map((schedule, at) =>
    pairOf(prepare(schedule), usualTwoStage(names[at], schedule))
  );
}
