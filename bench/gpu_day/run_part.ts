/** Runs a part in a process of its own, for so long at most, and keeps what it gives, without paths of the machine. */
import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, sep } from "node:path";
import process from "node:process";
import { endWithThis } from "../../lib/cli/endings.ts";
import { escaped } from "../../lib/text.ts";
import type { Outcome } from "./outcome.ts";
import { type Part, root, type Setting } from "./parts.ts";
import type { TestCounts } from "./test_counts.ts";

/** What is left to a process that was asked to end, until it is ended. */
const graceMs = 3000;

/** Runs a part whose files go into `folder`, with `seconds` for it. */
export async function runPart(
  part: Part,
  folder: string,
  setting: Omit<Setting, "json">,
): Promise<Outcome> {
  const { name, numbers } = part, { seconds: limit, python } = setting;
  const json = join(folder, `${name}.json`);
  const start = performance.now();
  const end = await runFor(part.command({ ...setting, json }), 1000 * limit);
  const seconds = Math.round((performance.now() - start) / 100) / 10;
  const clean = (text: string) => withoutPaths(text, folder, python);
  const stdout = clean(end.stdout), stderr = clean(withoutProgress(end.stderr));
  const outcome = (status: Outcome["status"], reason?: string): Outcome => ({
    ...{ name, status, seconds, limit: Math.round(limit) },
    ...reason === undefined ? {} : { reason: escaped(reason) },
  });
  writeFileSync(join(folder, `${name}.txt`), `${stdout}${stderr && `\n${stderr}`}`);
  let found: object | undefined;
  if (numbers) {
    try {
      found = numbers(stdout);
      writeFileSync(json, `${JSON.stringify(found, null, 1)}\n`);
    } catch {
      // its end says what was wrong
    }
  } else if (existsSync(json)) writeFileSync(json, clean(readFileSync(json, "utf8")));
  const counts = found && "complete" in found ? found as TestCounts : undefined;
  if (counts && counts.failed > 0) return outcome("failed", `${counts.failed} tests failed`);
  if (end.late && counts && counts.passed > 0) {
    return outcome("done", `only the first ${counts.passed} tests fitted into the time`);
  }
  if (end.late && existsSync(json) && !counts) return outcome("done", "its results were there when its time was over");
  if (end.late) return outcome("out of time", `ended after ${Math.round(limit)} s, its share of the time`);
  if (end.problem !== undefined) return outcome("failed", clean(end.problem));
  if (end.code !== 0) {
    return outcome("failed", lastWord(stderr) ?? `exit code ${end.code}; ${name}.txt has what it said`);
  }
  // A process that a signal has ended has code 0 in Deno.
  if (!existsSync(json) || counts?.complete === false) {
    return outcome("failed", "its process ended before its results: a driver with a fault ends it so");
  }
  return outcome("done");
}

interface End {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Whether its time was over. */
  readonly late: boolean;
  /** Why it could not be started. */
  readonly problem?: string;
}

function runFor([program, ...args]: readonly string[], ms: number): Promise<End> {
  const child = spawn(program, args, {
    cwd: root,
    env: { ...process.env, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  endWithThis(child);
  let stdout = "", stderr = "", late = false;
  child.stdout!.setEncoding("utf8").on("data", (chunk) => stdout += chunk);
  child.stderr!.setEncoding("utf8").on("data", (chunk) => stderr += chunk);
  const timers = [
    setTimeout(() => {
      late = true;
      child.kill("SIGTERM");
    }, ms),
    setTimeout(() => void child.kill("SIGKILL"), ms + graceMs), // a driver that hangs hears nothing
  ];
  return new Promise<End>((resolve) => {
    child.once("error", ({ message }) => resolve({ code: null, stdout, stderr, late, problem: message }));
    child.once("close", (code) => resolve({ code, stdout, stderr, late }));
  }).finally(() => timers.forEach(clearTimeout));
}

/** A text of the machine, as it may be shown elsewhere. */
export function withoutPaths(text: string, folder: string, python?: string): string {
  const names: readonly (readonly [string | undefined, string])[] = [
    [folder, "FOLDER"],
    [root.endsWith(sep) ? root : `${root}${sep}`, ""],
    [python?.includes(sep) ? python : undefined, "PYTHON"],
    [homedir(), "~"],
  ];
  return names.reduce((text, [path, name]) => path && path !== sep ? text.replaceAll(path, name) : text, text);
}

/** Without the lines of a progress bar, which is written again and again. */
function withoutProgress(text: string): string {
  // deno-lint-ignore no-control-regex -- colours and carriage returns
  const plain = text.replace(/\x1b\[[0-9;]*[A-Za-z]/g, "").split(/[\r\n]+/);
  return plain.filter((line) => line.trim() && !/^[-=]{10,} /.test(line)).map((line) => `${line}\n`).join("");
}

/** The line that says what was wrong: the last one that speaks of an error, or the last one at all, without what is indented. */
function lastWord(stderr: string): string | undefined {
  const lines = stderr.split("\n").filter((line) => /^\S/.test(line) && !line.startsWith("Warning: "));
  return lines.findLast((line) => /error: /i.test(line)) ?? lines.at(-1);
}
