/**
 * How far something long is, on standard error or in a notebook. No setting of a terminal is changed for it (cursor, line
 * wrapping), so that however a process ends, the terminal is as it was.
 */
import process from "node:process";
import { SingleBar } from "cli-progress";
import { display, inNotebook } from "./display.ts";

/** What a terminal's line needs when the process ends in the middle of it. */
const open = new Set<() => void>();
let watching = false;

function watch(close: () => void): void {
  open.add(close);
  if (watching) return;
  watching = true;
  process.on("exit", () => {
    try {
      for (const close of open) close();
    } catch {
      // Nobody is there to read it.
    }
  });
}

/** A bar on standard error; what `format` may say is the library's, and what `increment` and `update` are given. */
export function progressBar(
  format: string,
  options: { readonly clear?: boolean; readonly withoutTerminal?: boolean } = {},
): SingleBar {
  const bar = new SingleBar({
    format,
    barsize: 30,
    stream: process.stderr,
    hideCursor: false,
    linewrap: true, // as the terminal has it; longer lines are cut
    clearOnComplete: options.clear ?? false,
    noTTYOutput: options.withoutTerminal ?? false,
    notTTYSchedule: 10_000,
  });
  watch(() => bar.stop());
  return bar;
}

const endLine = () => void process.stderr.write("\n");

/** Shows one line in a terminal's standard error, in place of the one before; an empty text takes it away. */
export function showLine(text: string): void {
  if (!process.stderr.isTTY) return;
  process.stderr.write(`\r\x1b[2K${text}`);
  if (text) watch(endLine);
  else open.delete(endLine);
}

/** A line that says how far something long is. */
export interface ProgressLine {
  /** One more is done; `note` is shown behind the count. */
  step(note?: string): void;
  /** All is done: the line says so and stays. */
  done(): void;
}

let lines = 0;

/**
 * Shows the progress of a long cell in one line that replaces itself, at most four times a second; in a terminal on standard
 * error, and only where that is a terminal.
 *
 * @param total How many steps there are.
 * @param what What they are; default `steps`.
 */
export function progress(total: number, what = "steps"): ProgressLine {
  const notebook = inNotebook();
  const id = `progress-${process.pid}-${lines++}`;
  let count = 0;
  let last = -Infinity;
  const write = (text: string) => {
    if (notebook) void display({ "text/plain": text }, { id, update: last > -Infinity });
    else showLine(text);
    last = performance.now();
  };
  return {
    step(note) {
      count++;
      if (performance.now() - last > 250) write(`${count} of ${total} ${what}${note ? `, ${note}` : ""}`);
    },
    done() {
      write(`${count} ${what}`);
      if (!notebook && process.stderr.isTTY) {
        endLine();
        open.delete(endLine);
      }
    },
  };
}
