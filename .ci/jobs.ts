/**
 * Runs commands side by side, as many at a time as there are cores. What a job writes is shown in one piece once it has ended; what
 * fails is shown again at the end, behind everything else, and the rest runs nevertheless.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { delimiter, dirname } from "node:path";
import process from "node:process";

export interface Job {
  readonly name: string;
  /** A line for the shell. */
  readonly command: string;
  /** Runs while nothing else does: it looks at time. */
  readonly alone?: boolean;
  /** Begins when the job of this name has ended. */
  readonly after?: string;
}

/** How a job ended. */
export interface Result {
  readonly job: Job;
  readonly output: string;
  readonly failed: boolean;
}

/** More at once gain little, and each test process has its devices in memory. */
const mostAtOnce = 4;

const env = { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}` }; // jobs say deno
const start = performance.now();
const seconds = (since: number) => Math.round((performance.now() - since) / 1000);

/** What a task of deno.json does, without what it depends on: that has been done, and is not to happen beside what runs. */
export function taskOf(name: string): string {
  return JSON.parse(readFileSync("deno.json", "utf8")).tasks[name].command;
}

/** The jobs that are asked for by name, all where none is; and an error where one is not there. */
export function chosenOf(jobs: readonly Job[], names: readonly string[]): Job[] {
  const strange = names.filter((name) => !jobs.some((job) => job.name === name));
  if (strange.length > 0) {
    throw new Error(`There are no jobs ${strange.join(", ")}; there are ${jobs.map(({ name }) => name).join(", ")}`);
  }
  return jobs.filter(({ name }) => names.length === 0 || names.includes(name));
}

/** Those named in `longest` first, so that no core is idle at the end; the others behind them. */
export function sorted(jobs: readonly Job[], longest: readonly string[]): Job[] {
  const gone = longest.filter((name) => !jobs.some((job) => job.name === name));
  if (gone.length > 0) throw new Error(`There are no jobs ${gone.join(", ")} any more`);
  const place = ({ name }: Job) => longest.indexOf(name) < 0 ? longest.length : longest.indexOf(name);
  return jobs.toSorted((a, b) => place(a) - place(b));
}

/** Runs all, those that look at time at the end, one by one; says what failed once more. */
export async function runJobs(jobs: readonly Job[]): Promise<readonly Result[]> {
  const results = [
    ...await runAll(jobs.filter(({ alone }) => !alone), Math.min(availableParallelism(), mostAtOnce)),
    ...await runAll(jobs.filter(({ alone }) => alone), 1),
  ];
  const failed = results.filter((result) => result.failed);
  for (const { job, output } of failed) {
    console.log(`\n=== Once more, the end of ${job.name}, which failed:\n$ ${job.command}`);
    console.log(output.trimEnd().split("\n").slice(-150).join("\n"));
  }
  const which = failed.map(({ job }) => job.name).join(", ") || "none";
  console.log(`\n${results.length} jobs in ${seconds(start)} s, ${failed.length} failed: ${which}`);
  return results;
}

/** Runs jobs in their order, so many at a time. */
async function runAll(jobs: readonly Job[], lanes: number): Promise<Result[]> {
  const queue = [...jobs], results: Result[] = [], begun = new Map<string, Promise<Result>>();
  const lane = async () => {
    for (let job = queue.shift(); job; job = queue.shift()) {
      const before = begun.get(job.after ?? "");
      const result = (async (job: Job) => {
        await before;
        return await execute(job);
      })(job);
      begun.set(job.name, result);
      results.push(await result);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return results;
}

function execute(job: Job): Promise<Result> {
  const began = performance.now();
  console.log(`${seconds(start)} s: ${job.name} begins`);
  const child = spawn(job.command, { shell: true, env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => output += text);
  return new Promise((resolve, reject) =>
    child.once("error", reject).once("close", (code, signal) => {
      const failed = code !== 0;
      const how = failed ? `FAILED, ${signal ?? `exit code ${code}`},` : "done";
      console.log(
        `\n=== ${job.name}: ${how} in ${seconds(began)} s, ${seconds(start)} s after the start\n${output.trimEnd()}`,
      );
      resolve({ job, output, failed });
    })
  );
}
