/** `deno task notebooks`: runs the notebooks headless, in tslab and Node as Jupyter would, and can keep what they show. */
import { Buffer } from "node:buffer";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import { describeMachine, machineText } from "../measure/machine.ts";
import { notebookPage } from "../report/notebook_page.ts";
import { writeOutput } from "../output.ts";
import { progress } from "../report/progress.ts";
import { quoted } from "../text.ts";
import { endWithThis } from "./endings.ts";
import type { Message, Output } from "./notebook_cells.ts";
import { main } from "./options.ts";

/** A cell, as nbformat 4.5 has it. */
export interface Cell {
  id: string;
  cell_type: "markdown" | "code";
  metadata: Record<string, unknown>;
  source: string | string[];
  execution_count?: number | null;
  outputs?: Output[];
}

/** A notebook, as nbformat 4.5 has it. */
export interface Notebook {
  cells: Cell[];
  metadata: Record<string, unknown>;
  nbformat: number;
  nbformat_minor: number;
}

const folder = fileURLToPath(new URL("../../notebooks", import.meta.url));

/** The command line. */
export const notebooks = new Command("notebooks")
  .description(
    "Runs the notebooks from top to bottom in tslab, without Python, and fails on the first error. TWOBP_SCALE=full runs " +
      "them longer, for figures to keep; the default is small. Needs Node 20 or newer.",
  )
  .argument("[names...]", "which ones, such as quickstart (default: all)")
  .option("--write", "keep the outputs in the notebooks")
  .option("--html <folder>", "write each notebook as a page to read")
  .action(run);

async function run(names: string[], { write, html }: { write?: boolean; html?: string }): Promise<void> {
  const paths = notebookPaths(names);
  if (html === "") throw new UserError("--html needs the name of a folder");
  // Where there is no Node, Deno stands in for it unasked, and tslab is not made for that.
  const { status, stdout } = spawnSync("node", ["-p", "'deno' in process.versions"], { encoding: "utf8" });
  if (status !== 0 || stdout.trim() === "true") {
    throw new UserError("The notebooks run in Node, and there is no `node` on the PATH: install Node 20 or newer");
  }
  if (html) makeFolder(html);
  for (const path of paths) {
    const name = basename(path);
    const notebook: Notebook = JSON.parse(readFileSync(path, "utf8"));
    const start = performance.now();
    const bar = progress(codeOf(notebook).length, `cells of ${name}`);
    await execute(path, notebook, bar.to).finally(bar.done);
    process.stderr.write(`${name}: ${Math.round((performance.now() - start) / 1000)} s\n`);
    if (write) {
      writeOutput(path, format(notebook));
      writePictures(notebook);
    }
    if (!html) continue;
    const page = notebookPage(name, notebook, machineText(describeMachine()));
    writeOutput(join(html, name.replace(/ipynb$/, "html")), page);
  }
}

function notebookPaths(names: string[]): string[] {
  const known = readdirSync(folder).filter((name) => name.endsWith(".ipynb")).sort();
  if (names.length === 0) return known.map((name) => join(folder, name));
  return names.map((name) => {
    const found = known.find((other) => other === basename(name) || other === `${basename(name)}.ipynb`);
    if (!found) {
      const list = known.map((other) => other.replace(/\.ipynb$/, "")).join(", ");
      throw new UserError(`There is no notebook ${quoted(name)}; the notebooks are ${list}`);
    }
    return join(folder, found);
  });
}

/** Pictures that a page outside shows: a cell whose metadata lists `pictures` keeps its PNGs, in order, under these names. */
function writePictures({ cells }: Notebook): void {
  for (const { metadata, outputs = [] } of cells) {
    const names = (metadata.pictures ?? []) as string[];
    const images = outputs.flatMap((output) => "data" in output ? [output.data["image/png"]] : []).filter(Boolean);
    for (const [index, name] of names.entries()) {
      writeOutput(join(folder, name), [Buffer.from([images[index]].flat().join(""), "base64")]);
    }
  }
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (error) {
    throw new UserError(`Cannot make the folder ${path}: ${fileProblem(error)}`);
  }
}

function codeOf({ cells }: Notebook): Cell[] {
  return cells.filter(({ cell_type }) => cell_type === "code");
}

/**
 * Runs a notebook's code cells and puts their outputs into it.
 *
 * @param path Its file: cells run in its folder, as in Jupyter.
 * @param onProgress Called with the cells that are done, and what the one under way says of itself.
 * @throws {UserError} Names the notebook, the cell and what went wrong in it.
 */
export async function execute(
  path: string,
  notebook: Notebook,
  onProgress: (done: number, note?: string) => void = () => {},
): Promise<void> {
  const worker = fileURLToPath(new URL("notebook_cells.ts", import.meta.url));
  const where = resolve(path, "..");
  const tsx = existsSync(join(folder, "../node_modules/tsx"))
    ? join(folder, "../node_modules/tsx/dist/loader.mjs")
    : "tsx";
  const child = spawn("node", ["--import", tsx, worker, resolve(path)], {
    cwd: where,
    stdio: ["ignore", "pipe", "pipe"],
  });
  endWithThis(child);
  let complaints = "";
  child.stderr.on("data", (chunk) => complaints += chunk);
  const ended = new Promise<number | null>((resolve, reject) => child.once("error", reject).once("close", resolve));
  const code = codeOf(notebook);
  let count = 0;
  let failure: string | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    if (!line.startsWith('{"cell":')) continue; // a driver that talks
    const message: Message = JSON.parse(line);
    const position = code.indexOf(notebook.cells[message.cell]) + 1;
    if ("note" in message) {
      onProgress(position - 1, message.note);
      continue;
    }
    const cell = notebook.cells[message.cell];
    cell.outputs = message.outputs.map(tidy);
    cell.execution_count = ++count;
    if (!message.ok) failure = `cell ${position} of ${code.length}: ${errorText(message.outputs)}`;
    else onProgress(position);
  }
  const status = await ended;
  if (!failure && (status !== 0 || count < code.length)) {
    failure = `cell ${count + 1} of ${code.length}: ${complaints.trim() || `Node ended with code ${status}`}`;
  }
  if (failure) throw new UserError(`${basename(path)}, ${failure}`);
}

function errorText(outputs: readonly Output[]): string {
  const texts = outputs.flatMap((output) =>
    output.output_type === "stream" && output.name === "stderr" ? output.text : []
  );
  // Neither the stack of a cell's error nor the line of compiled code says what its message does not.
  return texts.join("").replace(/^evalmachine.*\n.*\n\s*\^+\s*/, "").replace(/\n\s+at .*/g, "").trim() ||
    "failed without a message";
}

/** Texts as lists of lines, which is how Jupyter itself writes them, so that a change shows as a change of lines. */
function tidy(output: Output): Output {
  if (output.output_type === "stream") return { ...output, text: lines(output.text.join("")) };
  const data = Object.fromEntries(
    Object.entries(output.data).sort(([a], [b]) => a < b ? -1 : 1).map(([type, value]) => [
      type,
      type.startsWith("text/") && typeof value === "string" ? lines(value) : value,
    ]),
  );
  return { ...output, data };
}

const lines = (text: string) => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];

/** As Jupyter writes it: keys in order, one blank of indentation. */
export function format(notebook: Notebook): string {
  const sorted = (value: unknown): unknown =>
    Array.isArray(value) ? value.map(sorted) : value && typeof value === "object"
      ? Object.fromEntries(
        Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([key, inner]) => [key, sorted(inner)]),
      )
      : value;
  const cells = notebook.cells.map((cell) => ({
    ...cell,
    source: typeof cell.source === "string" ? lines(cell.source) : cell.source,
  }));
  return JSON.stringify(sorted({ ...notebook, cells }), null, 1) + "\n";
}

if (import.meta.main) await main(notebooks);
