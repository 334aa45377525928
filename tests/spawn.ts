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
  const root = new URL("..", import.meta.url);
  const child = spawn(process.execPath, [...flags, fileURLToPath(new URL(script, root)), ...args], {
    cwd: root,
    env: environment as NodeJS.ProcessEnv,
  });
  const ended: Ended = { code: null, stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (chunk) => ended.stdout += chunk);
  child.stderr.setEncoding("utf8").on("data", (chunk) => ended.stderr += chunk);
  const done = new Promise<Ended>((resolve, reject) =>
    child.once("error", reject).once("close", (code) => resolve({ ...ended, code }))
  );
  /** Waits until standard output, or the other stream, holds `text`. */
  const said = async (text: string, stream: "stdout" | "stderr" = "stdout") => {
    const limit = performance.now() + 60_000;
    while (!ended[stream].includes(text)) {
      if (child.exitCode !== null || performance.now() > limit) {
        throw new Error(`"${text}" was not said: ${ended.stderr}`);
      }
      await new Promise((later) => setTimeout(later, 10));
    }
    return ended[stream];
  };
  return { child, done, said };
}

/**
 * A program of this project in one process for many command lines, one after the other: most of what a short one takes is the start of its
 * process. What counts the memory of its process, or looks at how it ends, is for start().
 */
export function program(script: string, env: Record<string, string | undefined> = {}) {
  const { child, done } = start("tests/each_program.ts", [script], env);
  const texts = { stdout: "", stderr: "" };
  let heard = () => {};
  for (const name of ["stdout", "stderr"] as const) {
    child[name].on("data", (chunk) => {
      texts[name] += chunk;
      heard();
    });
  }
  const end = /\0(\d+)\0$/; // what each_program.ts writes behind a command line
  async function ended(args: readonly string[]): Promise<Ended> {
    texts.stdout = texts.stderr = "";
    child.stdin.write(`${JSON.stringify(args)}\n`);
    while (!end.test(texts.stdout) || !end.test(texts.stderr)) {
      const died = await Promise.race([done, new Promise<void>((resolve) => heard = resolve)]);
      if (died) throw new Error(`${script} ${args.join(" ")} died, ${died.code}: ${texts.stderr}`);
    }
    const [stdout, stderr] = [texts.stdout, texts.stderr].map((text) => text.replace(end, ""));
    return { code: Number(end.exec(texts.stdout)![1]), stdout, stderr };
  }
  let before: Promise<unknown> = Promise.resolve();
  return {
    /** What a command line writes, and the code that its process would end with. */
    run(...args: string[]): Promise<Ended> {
      const result = before.then(() => ended(args));
      before = result.catch(() => {});
      return result;
    },
    /** Ends the process. */
    async close(): Promise<void> {
      child.stdin.end();
      await done;
    },
  };
}
