/**
 * How far something long is: a bar in a terminal, a line every ten seconds where standard error is none, and in a notebook a
 * line that replaces itself. No setting of a terminal is changed for it (cursor, line wrapping), so that however a process
 * ends, the terminal is as it was.
 */
import process from "node:process";
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

/** Milliseconds between two looks at it. */
const every = { notebook: 250, terminal: 100, file: 10_000 } as const;
const barWidth = 30;
let shown = 0;

/**
 * Shows the progress of something long. Outside of notebooks it is written to standard error.
 *
 * ```ts
 * import { progress } from "twobp";
 *
 * const bar = progress(3, "models");
 * for (const name of ["llama-tiny", "bert-tiny", "mamba-tiny"]) bar.step(name);
 * bar.done();
 * ```
 *
 * @param total How many there are to do.
 * @param what What they are; default `steps`.
 */
export function progress(total: number, what = "steps"): ProgressLine {
  const place = inNotebook() ? "notebook" : process.stderr.isTTY ? "terminal" : "file";
  const id = `progress-${process.pid}-${shown++}`;
  const start = performance.now();
  let count = 0;
  let last = place === "file" ? start : -Infinity;
  const write = (text: string, bar: string) => {
    if (place === "notebook") void display({ "text/plain": text }, { id, update: last > -Infinity });
    else if (place === "terminal") showLine(`${bar} ${text}`);
    else process.stderr.write(`${text}\n`);
    last = performance.now();
  };
  const to = (done: number, note?: string) => {
    count = done;
    const now = performance.now();
    if (now - last < every[place]) return;
    const left = done > 0 && done < total ? `, ${duration((now - start) / done * (total - done))} left` : "";
    const filled = Math.round(barWidth * Math.min(1, done / total));
    write(
      `${done} of ${total} ${what}${left}${note ? `, ${note}` : ""}`,
      "█".repeat(filled) + "░".repeat(barWidth - filled),
    );
  };
  return {
    step: (note) => to(count + 1, note),
    to,
    done() {
      if (place === "notebook") write(`${count} ${what}`, "");
      if (place === "terminal") showLine("");
    },
  };
}

function duration(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  return seconds < 100
    ? `${seconds} s`
    : seconds < 6000
    ? `${Math.round(seconds / 60)} min`
    : `${(seconds / 3600).toFixed(1)} h`;
}

/** Whether there is a line in the terminal that has no end yet, and whether the end of the process is being waited for. */
let open = false, watching = false;

/** Shows one line in place of the one before, cut to the terminal; an empty text takes it away. */
function showLine(text: string): void {
  const { columns = 80 } = process.stderr;
  process.stderr.write(`\r\x1b[2K${[...text].slice(0, columns - 1).join("")}`);
  open = text !== "";
  if (watching) return;
  watching = true;
  // A process that ends in the middle of a line leaves the shell's prompt one of its own.
  process.on("exit", () => {
    try {
      if (open) process.stderr.write("\n");
    } catch {
      // Nobody is there to read it.
    }
  });
}
