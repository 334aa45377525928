/**
 * A command in a process of its own: a driver that crashes takes its process along, and somebody must be left to say so.
 *
 * @module
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { endWithThis } from "./endings.ts";

/** How a process ended. */
export interface GuardedEnd {
  /** Its exit code; undefined where it was ended by something else than itself. */
  readonly code?: number;
  /** What it was about to do when it crashed; an empty text where it had not said anything yet. */
  readonly crashedDuring?: string;
}

/** Sends what is about to be done to the process that guards this one, if any; an empty text when all is done. */
export async function tellGuard(doing: string): Promise<void> {
  if (process.send) await new Promise<void>((sent) => void process.send!(doing, () => sent()));
}

/** What this runtime, `process.execPath`, needs before the path of a script. */
export function runtimeArguments(): readonly string[] {
  const { deno, bun } = process.versions as Record<string, string | undefined>;
  return deno ? ["run", "-A", "--no-check"] : bun ? [] : process.execArgv;
}

/** Runs a script in this runtime, with this process's terminal, until it ends. */
export async function runGuarded(script: URL, args: readonly string[]): Promise<GuardedEnd> {
  const stdio = ["inherit", "inherit", "inherit", "ipc"] as ["inherit", "inherit", "inherit", "ipc"];
  const child = spawn(process.execPath, [...runtimeArguments(), fileURLToPath(script), ...args], { stdio });
  endWithThis(child);
  let doing = "";
  child.on("message", (message) => doing = String(message));
  const code = await new Promise<number | null>((resolve, reject) =>
    child.once("error", reject).once("close", (code) => resolve(code))
  );
  // Deno gives code 0 for a process that a signal has ended: whether it was done is what it said itself.
  const isOwn = code !== null && (code !== 0 || doing === "") && code < 128;
  const isAsked = code === 130 || code === 143 || code === 129; // Ctrl-C and its like
  if (isOwn || isAsked) return { code };
  return { crashedDuring: doing };
}
