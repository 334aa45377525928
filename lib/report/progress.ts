import process from "node:process";
import { display, inNotebook } from "./display.ts";

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
    else if (process.stderr.isTTY) process.stderr.write(`\r\x1b[2K${text}`);
    last = performance.now();
  };
  return {
    step(note) {
      count++;
      if (performance.now() - last > 250) write(`${count} of ${total} ${what}${note ? `, ${note}` : ""}`);
    },
    done() {
      write(`${count} ${what}`);
      if (!notebook && process.stderr.isTTY) process.stderr.write("\n");
    },
  };
}
