/**
 * How far something long is: a bar in a terminal, a line every ten seconds where standard error is none, and in a notebook a
 * line that replaces itself. No setting of a terminal is changed for it (cursor, line wrapping), so that however a process
 * ends, the terminal is as it was.
 */
import process from "node:process";
import { SingleBar } from "cli-progress";
import { processNumber } from "../runtime/transports/mpi/launcher.ts";
import { display, inNotebook } from "./display.ts";

/** How far something long is, as it is shown. */
export interface ProgressLine {
  /** One more is done; `note` is shown behind the count. */
  step(note?: string): void;
  /** So many are done. */
  to(done: number, note?: string): void;
  /** Nothing more comes: a notebook keeps the count, a terminal's line is taken away. */
  done(): void;
}

/** Milliseconds between two lines, in a notebook and in a file. */
const every = { notebook: 250, file: 10_000 } as const;
let shown = 0;

/**
 * Shows the progress of something long. Outside of notebooks it is written to standard error.
 *
 * ```ts
 * import { progress } from "twobp/report";
 *
 * const bar = progress(3, "models");
 * for (const name of ["llama-tiny", "bert-tiny", "mamba-tiny"]) bar.step(name);
 * bar.done();
 * ```
 *
 * @param total How many there are to do.
 * @param what What they are; default `steps`.
 * @param before How many are done already, and say nothing about how long the others take; default none.
 */
export function progress(total: number, what = "steps", before = 0): ProgressLine {
  if (processNumber() > 0) return { step() {}, to() {}, done() {} }; // the first process of a job shows it
  return inNotebook() ? inCell(total, what, before) : onStandardError(total, what, before);
}

/** A line in a cell's output that replaces itself. */
function inCell(total: number, what: string, before: number): ProgressLine {
  const id = `progress-${process.pid}-${shown++}`;
  let count = before, last = -Infinity;
  const write = (text: string) => {
    void display({ "text/plain": text }, { id, update: last > -Infinity });
    last = performance.now();
  };
  const to = (done: number, note?: string) => {
    count = done;
    if (performance.now() - last >= every.notebook) write(`${done} of ${total} ${what}${note ? `, ${note}` : ""}`);
  };
  return { step: (note) => to(count + 1, note), to, done: () => write(`${count} ${what}`) };
}

/** A bar, which a terminal shows until all is done, and a file in a line of its own now and then. */
function onStandardError(total: number, what: string, before: number): ProgressLine {
  const bar = new SingleBar({
    format: `{bar} {value} of {total} ${what}, {eta_formatted} left{note}`,
    barsize: 30,
    stream: process.stderr,
    hideCursor: false,
    linewrap: true, // as the terminal has it; longer lines are cut
    clearOnComplete: true,
    noTTYOutput: true,
    notTTYSchedule: every.file,
    formatTime: duration, // the library's own says "NFs" while it does not know
  });
  bar.start(total, before, { note: "" });
  stopAtEnd(bar);
  let count = before;
  const to = (done: number, note?: string) => {
    count = done;
    bar.update(done, { note: note ? `, ${note}` : "" });
  };
  return {
    step: (note) => to(count + 1, note),
    to,
    done() {
      bar.stop();
      open.delete(bar);
    },
  };
}

function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  if (seconds < 100) return `${seconds} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Bars that are shown. */
const open = new Set<SingleBar>();
let watching = false;

/** A process that ends in the middle of a bar leaves the shell's prompt a line of its own. */
function stopAtEnd(bar: SingleBar): void {
  open.add(bar);
  if (watching) return;
  watching = true;
  process.on("exit", () => {
    try {
      for (const bar of open) bar.stop();
    } catch {
      // Nobody is there to read it.
    }
  });
}
