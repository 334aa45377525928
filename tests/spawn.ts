/** Runs a script of the tests in a process of its own, in the runtime that runs the tests. */
import { spawn } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** What the runtime needs before the path of a script. */
export const flags: readonly string[] = process.versions.deno
  ? ["run", "-A", "--no-check"]
  : process.versions.bun
  ? []
  : ["--import", "tsx"];

/** How a process ended, and what it wrote. */
export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Starts a script by its path from the project's root; `env` is added to the environment, an undefined value taken out of it. */
export function start(script: string, args: readonly string[] = [], env: Record<string, string | undefined> = {}) {
  const environment = Object.fromEntries(
    Object.entries({ ...process.env, ...env }).filter(([, value]) => value !== undefined),
  );
  const path = fileURLToPath(new URL(`../${script}`, import.meta.url));
  const child = spawn(process.execPath, [...flags, path, ...args], { env: environment as NodeJS.ProcessEnv });
  const ended: Ended = { code: null, stdout: "", stderr: "" };
  child.stdout.on("data", (chunk) => ended.stdout += chunk);
  child.stderr.on("data", (chunk) => ended.stderr += chunk);
  const done = new Promise<Ended>((resolve, reject) =>
    child.once("error", reject).once("close", (code) => resolve({ ...ended, code }))
  );
  /** Waits until standard output holds `text`. */
  const said = async (text: string) => {
    const limit = performance.now() + 60_000;
    while (!ended.stdout.includes(text)) {
      if (child.exitCode !== null || performance.now() > limit) {
        throw new Error(`"${text}" was not said: ${ended.stderr}`);
      }
      await new Promise((later) => setTimeout(later, 10));
    }
    return ended.stdout;
  };
  return { child, done, said };
}
