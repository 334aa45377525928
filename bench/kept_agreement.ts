/**
 * `bench agreement --keep`: what predictions were off, a file for each kind of devices in `bench/results`, and of these a page
 * with tables and the table of the library that error bars are made from. A run of some models leaves the others of a file as they are.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { UserError } from "twobp";
import {
  driverOf,
  type KeptErrors,
  type PredictedRun,
  type PredictionErrors,
  predictionErrors,
  type ThroughputReport,
} from "twobp/measure";
import { predictionErrorsTable, predictionSummaryTable, type Table, tableMarkdown } from "twobp/report";
import { jsonText } from "../lib/cli/outputs.ts";
import { describeMachine, type Machine } from "../lib/measure/machine.ts";
import { writeOutput } from "../lib/output.ts";

/** The places of this checkout. */
export const keptPlaces = {
  folder: fileURLToPath(new URL("results/", import.meta.url)),
  table: fileURLToPath(new URL("../lib/measure/kept_errors.ts", import.meta.url)),
};

/** A run with how it came about. */
export interface KeptRun extends PredictedRun {
  readonly command: string;
  readonly machine: Machine;
}

/** The file of one kind of devices. */
export interface KeptAgreement extends PredictionErrors {
  readonly schema: 1;
  readonly mode: ThroughputReport["mode"];
  readonly devices: number;
  readonly adapter: string;
  /** One a model, in the order of their names. */
  readonly runs: readonly KeptRun[];
}

/** Of which devices. */
export type KeptKind = Pick<KeptAgreement, "mode" | "devices" | "adapter">;

const kept = /^agreement-(?:real|virtual)-\d+-.*\.json$/;

/** The name of the file of a kind. */
export function keptName({ mode, devices, adapter }: KeptKind): string {
  const driver = driverOf(adapter);
  return `agreement-${mode}-${devices}-${driver === "llvmpipe" ? "lavapipe" : driver}.json`;
}

/** The file with a run more, or in place of the one that it had of the model. */
export function withRun(file: KeptAgreement | undefined, kind: KeptKind, run: KeptRun): KeptAgreement {
  const others = file?.runs.filter(({ model }) => model !== run.model) ?? [];
  const runs = [...others, run].sort((a, b) => a.model < b.model ? -1 : 1);
  const { mode, devices, adapter } = kind;
  return { schema: 1, mode, devices, adapter, ...predictionErrors(runs), runs };
}

/** Keeps what this command has just measured, in its file, on the page and in the library's table. */
export function keepRun(
  kind: KeptKind,
  run: PredictedRun,
  noise: Pick<Machine, "noise"> = {},
  { folder, table } = keptPlaces,
): void {
  const path = join(folder, keptName(kind));
  const command = `bench ${process.argv.slice(2).join(" ")}`;
  const made = { ...run, command, machine: { ...describeMachine(), ...noise } };
  writeOutput(path, jsonText(withRun(existsSync(path) ? readKept(path) : undefined, kind, made)));
  const files = readFolder(folder);
  writeOutput(join(folder, "agreement.md"), pageText(files));
  writeOutput(table, tableModule(files));
}

/** The kept files of a folder, by name. */
export function readFolder(folder: string): KeptAgreement[] {
  return readdirSync(folder).filter((name) => kept.test(name)).sort().map((name) => readKept(join(folder, name)));
}

function readKept(path: string): KeptAgreement {
  const file = JSON.parse(readFileSync(path, "utf8")) as KeptAgreement;
  if (file.schema === 1 && Array.isArray(file.runs)) return file;
  throw new UserError(`${path} is not what bench agreement --keep writes: move it away`);
}

/** The library's table as the text of its module. */
export function tableModule(files: readonly KeptAgreement[]): string {
  const number = (value: number) => String(Number(value.toPrecision(3)));
  const entry = ({ mode, devices, adapter, ...errors }: KeptAgreement) => {
    const lines = [`mode: "${mode}"`, `devices: ${devices}`, `driver: ${JSON.stringify(driverOf(adapter))}`];
    for (const name of ["step", "gain", "counted"] as const satisfies (keyof KeptErrors)[]) {
      const summary = errors[name];
      if (!summary) continue;
      const { median, within, cases } = summary;
      lines.push(`${name}: { median: ${number(median)}, within: ${number(within)}, cases: ${cases} }`);
    }
    return `  {\n${lines.map((line) => `    ${line},\n`).join("")}  },\n`;
  };
  const list = files.length > 0 ? `[\n${files.map(entry).join("")}]` : "[]";
  return `/** Written by \`deno task bench agreement --keep\`, out of bench/results/agreement-*.json: run that again, and edit nothing here. */
import type { KeptErrors } from "./prediction_errors.ts";

/** How far predictions were off in the runs that are kept. */
export const keptErrors: readonly KeptErrors[] = ${list};
`;
}

/** The page: over all, schedule by schedule, and which runs these are. */
export function pageText(files: readonly KeptAgreement[]): string {
  const runs: Table = {
    columns: ["devices", "model", "samples", "rounds", "date", "processor", "command"],
    rows: files.flatMap(({ mode, devices, runs }) =>
      runs.map(({ model, samples, rounds, command, machine: { date, processor } }) => [
        `${devices} ${mode}`,
        ...[model, samples, rounds, date.slice(0, 10), processor, command],
      ])
    ),
  };
  const parts = [
    "# What predictions are off",
    "Written by `deno task bench agreement --keep`, as [its section](../README.md#virtual-against-real) says.",
    tableMarkdown(predictionSummaryTable(files)),
    ...files.flatMap(({ mode, devices, adapter, runs }) => [
      `## ${devices} ${mode} devices`,
      `${adapter}.`,
      tableMarkdown(predictionErrorsTable(runs)),
    ]),
    "## Runs",
    tableMarkdown(runs),
  ];
  return `${parts.map((part) => part.trim()).join("\n\n")}\n`;
}
