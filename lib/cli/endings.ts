/**
 * How a command line ends before its time: Ctrl-C, SIGTERM, a terminal that closes, a reader that has seen enough. All of
 * them end it through `process.exit`, so that what was begun is put in order by the `exit` listeners of whoever began it.
 *
 * @module
 */

import type { ChildProcess } from "node:child_process";
import process from "node:process";
import { fileProblem } from "../files.ts";

/** Exit codes as a shell gives them: 128 and the signal's number. */
const codes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/** The ways to end of which the first signal can be taken over. */
type Signal = keyof typeof codes;

let interrupted: { readonly signals: readonly Signal[]; readonly handle: (code: number) => void } | undefined;

/** Ends the process in order from now on, whatever ends it. */
export function watchEndings(): void {
  for (const [signal, code] of Object.entries(codes) as [Signal, number][]) {
    if (process.platform === "win32" && signal !== "SIGINT") continue; // there is no such thing
    process.on(signal, () => {
      const taken = interrupted?.signals.includes(signal) ? interrupted : undefined;
      interrupted = undefined;
      if (taken) taken.handle(code);
      else process.exit(code);
    });
  }
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error) => {
      if (isClosedPipe(error)) process.exit(0);
      const problem = outputProblem(error);
      if (problem === undefined) throw error;
      if (stream !== process.stderr) process.stderr.write(`${problem}\n`);
      process.exit(2);
    });
  }
}

/** Whether the reader of a pipe has seen enough, as in `... | head`. */
export function isClosedPipe(error: unknown): boolean {
  return (error as { code?: string } | undefined)?.code === "EPIPE";
}

/** Why standard output took no more, in one line; undefined for any other error. */
export function outputProblem(error: unknown): string | undefined {
  const { code = "" } = error as { code?: string };
  if (!["ENOSPC", "EDQUOT", "EFBIG", "EIO"].includes(code)) return undefined;
  return `Cannot write the output: ${fileProblem(error)}`;
}

/** Calls `handle` at the next Ctrl-C, in place of ending the process; the one after that ends it as always. */
export function onNextInterrupt(handle: () => void): void {
  interrupted = { signals: ["SIGINT"], handle };
}

/**
 * Calls `handle` at the next signal that would end the process, Ctrl-C or a batch system's SIGTERM, with the code to end with; the one after
 * that ends it as always.
 */
export function onNextEnding(handle: (code: number) => void): void {
  interrupted = { signals: ["SIGINT", "SIGTERM", "SIGHUP"], handle };
}

/** Ends a process that this one has started when this one ends. */
export function endWithThis(child: ChildProcess): void {
  const end = () => void child.kill();
  process.once("exit", end);
  child.once("close", () => process.removeListener("exit", end));
}
