/**
 * Where what a command finds goes: lines for the reader, and the files that its flags name. Where one of these is standard
 * output, the lines go to standard error.
 *
 * @module
 */
import { isAbsolute, relative, resolve, sep } from "node:path";
import process from "node:process";
import { UserError } from "../errors.ts";
import { describeMachine, machineText } from "../measure/machine.ts";
import type { Noise } from "../measure/noise.ts";
import { processNumber } from "../runtime/transports/mpi/launcher.ts";
import { checkOutputFolder, checkOutputs, writeOutput } from "../output.ts";
import { page, type Section } from "../report/html.ts";
import { checkFigurePackages, writeRunFolder } from "../report/run_folder.ts";
import { escaped, shown } from "../text.ts";

/** The flags that name files, and the names that these have in the folder of `--out`. */
const names = { json: "report.json", html: "index.html", csv: "schedule.csv", trace: "trace.json" } as const;

/** What the flags that name outputs were given. */
export type OutputPaths = { readonly [flag in keyof typeof names | "out" | "metrics" | "save" | "adapters"]?: string };

/** What a run gives. */
export interface Results {
  /** Of the page. */
  readonly title: string;
  /** The numbers, for `--json`. */
  readonly report: object;
  /** How quiet the machine was, where that was looked at. */
  readonly noise?: Noise;
  /** Figures and tables, for `--html`; made only where somebody asks for them. */
  readonly sections: () => readonly Section[] | Promise<readonly Section[]>;
  /** The schedule as PyTorch's CSV, for `--csv`. */
  readonly csv?: () => string;
  /** The trace, for `--trace`. */
  readonly trace?: () => string;
}

/** What a command writes. */
export interface Outputs {
  /** Prints a line. */
  say(line: string): void;
  /**
   * Writes what the flags ask for, with the command, `bench throughput --repeats 3` for example, the versions, the commit and
   * the machine that gave it: `--json` and so on a file each, `--out` all of it into one folder.
   */
  results(program: string, results: Results): Promise<void>;
}

/**
 * Checks the files that a command's flags name, before anything runs.
 *
 * @throws {UserError} Names the flag and what is wrong with its path.
 */
export function openOutputs(paths: OutputPaths): Outputs {
  if (processNumber() > 0) return { say() {}, results: () => Promise.resolve() }; // the first process of a job writes
  const { json, html, csv, trace, metrics, save, adapters, out } = paths;
  checkOutputs({ "--json": json, "--html": html, "--csv": csv, "--trace": trace, "--metrics": metrics });
  if (out !== undefined) {
    checkOutputFolder("--out", out);
    for (const [flag, path] of Object.entries({ json, html, csv, trace, metrics, save, adapters })) {
      if (path === undefined || path === "-" || !isWithin(path, out)) continue;
      throw new UserError(
        `--${flag} ${shown(path)} is in the folder of --out, which is made whole and last: give it another place`,
      );
    }
    checkFigurePackages();
  }
  const aside = [json, html, csv, trace, metrics].includes("-");
  return {
    say: (line) => aside ? void process.stderr.write(`${line}\n`) : writeOutput("-", `${line}\n`),
    async results(program, { title, report, noise, ...made }) {
      const command = escaped(`${program} ${process.argv.slice(2).join(" ")}`.trim());
      const machine = { ...describeMachine(), ...(noise ? { noise } : {}) };
      const about = `${command}; ${machineText(machine)}`;
      const texts = {
        json: () => jsonText({ ...report, command, machine }),
        csv: made.csv,
        trace: made.trace,
      };
      for (const [flag, make] of Object.entries(texts) as [keyof typeof texts, (() => string) | undefined][]) {
        const path = paths[flag];
        if (path !== undefined && make) writeOutput(path, make());
      }
      if (html === undefined && out === undefined) return;
      const sections = await made.sections();
      if (html !== undefined) writeOutput(html, page(title, sections, about));
      if (out === undefined) return;
      const files = Object.entries(texts).flatMap(([flag, make]) =>
        make ? [[names[flag as keyof typeof texts], make()]] : []
      );
      await writeRunFolder(out, { title, sections, about, files: Object.fromEntries(files) });
    },
  };
}

/** Whether a path is a folder, or leads into it. */
function isWithin(path: string, folder: string): boolean {
  const way = relative(resolve(folder), resolve(path));
  return !isAbsolute(way) && way.split(sep)[0] !== "..";
}

/** JSON with a line for each field, but for what is short and for lists of plain values: samples are many. */
export function jsonText(report: object): string {
  const text = (value: unknown, indent: string): string => {
    if (typeof value !== "object" || value === null) return JSON.stringify(value);
    const isList = Array.isArray(value),
      isPlain = Object.values(value).every((each) => typeof each !== "object" || !each);
    const inner = `${indent} `;
    const entries = Object.entries(value).map(([name, each]) =>
      `${isList ? "" : `${JSON.stringify(name)}: `}${text(each, inner)}`
    );
    const [open, close] = isList ? "[]" : "{}";
    const line = open + entries.join(", ") + close;
    if (isPlain && (isList || line.length <= 100)) return line;
    return `${open}\n${inner}${entries.join(`,\n${inner}`)}\n${indent}${close}`;
  };
  return `${text(JSON.parse(JSON.stringify(report)), "")}\n`; // what JSON leaves out is out, NaN is null
}
