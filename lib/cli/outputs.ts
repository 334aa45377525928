/**
 * Where what a command finds goes: lines for the reader, and the files that its flags name. Where one of these is standard
 * output, the lines go to standard error.
 *
 * @module
 */
import process from "node:process";
import { describeMachine } from "../measure/machine.ts";
import { checkOutputs, writeOutput } from "../output.ts";
import { page, type Section } from "../report/html.ts";

/** A flag that names a file to write. */
export type OutputFlag = "json" | "html" | "csv" | "trace";

/** What a command writes. */
export interface Outputs {
  /** Prints a line. */
  say(line: string): void;
  /** Writes what `make` makes where the flag asks for it. */
  write(flag: OutputFlag, make: () => string): void;
  /** Writes a report where `--json` asks for it: with the command that gave it, `bench throughput --repeats 3` for example, and the machine. */
  report(program: string, report: object): void;
  /** What that writes. */
  json(program: string, report: object): string;
  /** Writes a page where `--html` asks for it. */
  page(title: string, sections: () => readonly Section[]): void;
}

/**
 * Checks the files that a command's flags name, before anything runs.
 *
 * @throws {UserError} Names the flag and what is wrong with its path.
 */
export function openOutputs(paths: { readonly [flag in OutputFlag]?: string }): Outputs {
  const { json, html, csv, trace } = paths;
  checkOutputs({ "--json": json, "--html": html, "--csv": csv, "--trace": trace });
  const aside = [json, html, csv, trace].includes("-");
  const write: Outputs["write"] = (flag, make) => {
    const path = paths[flag];
    if (path !== undefined) writeOutput(path, make());
  };
  return {
    say: (line) => aside ? void process.stderr.write(`${line}\n`) : writeOutput("-", `${line}\n`),
    write,
    report: (program, report) => write("json", () => reportJson(program, report)),
    json: reportJson,
    page: (title, sections) => write("html", () => page(title, [...sections()])),
  };
}

function reportJson(program: string, report: object): string {
  const command = `${program} ${process.argv.slice(2).join(" ")}`.trim();
  return `${JSON.stringify({ ...report, command, machine: describeMachine() }, null, 1)}\n`;
}
