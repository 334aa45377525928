/**
 * What `.ci/run` runs, as many jobs at a time as there are cores. What a job writes is shown in one piece once it has ended; what
 * fails is shown again at the end, behind everything else, and the rest runs nevertheless. The last line counts the tests of
 * `deno task test`. Names as arguments run these jobs alone: `.ci/jobs.ts tests/ops docs`.
 */
import { execFileSync, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { delimiter, dirname } from "node:path";
import process from "node:process";

interface Job {
  readonly name: string;
  /** A line for the shell. */
  readonly command: string;
  /** Whether its tests are among those of `deno task test`. */
  readonly counted?: boolean;
  /** Runs while nothing else does: it looks at time. */
  readonly alone?: boolean;
  /** Puts files into the tree for a while, which the job `check` is not to see. */
  readonly writes?: boolean;
}

/** What a task of deno.json does, without what it depends on: that has been done, and is not to happen beside what runs. */
const { tasks } = JSON.parse(readFileSync("deno.json", "utf8"));
const task = (name: string): string => tasks[name].command;

const tests = task("test").replace(/ tests$/, "");
if (tests === task("test")) throw new Error("The task test does not end with the folder tests");
const bundled = `TWOBP_DRIVER=bundled ${tests}`;

/** Tests that look at how long something takes, or how many cores there are for it. */
const timed = ["tests/gpu/devices.test.ts", "tests/measure/ablation.test.ts"];
const without = (files: readonly string[]) => files.map((file) => `--ignore=${file}`).join(" ");

/**
 * What another driver can break: opening and closing it, and the kernels, which each layer here compares with a float64 reference.
 * The rest of these folders is about what happens in JavaScript, whatever the driver.
 */
const ofDriver = [
  ...["cache_folder", "closing", "kernel", "opening", "parameters", "poll"].map((name) => `tests/gpu/${name}.test.ts`),
  ...["bert", "images", "layers", "lora", "mamba"].map((name) => `tests/layers/${name}.test.ts`),
  "tests/runtime/reference.test.ts",
];

/** Every folder of tests is a job, and the files beside them are one: none is forgotten. */
const folders = readdirSync("tests", { withFileTypes: true });
const testsOf = (name: string): Job => ({
  ...{ name, command: `${tests} ${without(timed)} ${name}`, counted: true },
  writes: name === "tests/notebooks",
});
const hasTests = (folder: string) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" }).some((name) => name.endsWith(".test.ts"));
const ofFolders = folders.filter((each) => each.isDirectory() && hasTests(`tests/${each.name}`))
  .map(({ name }) => testsOf(`tests/${name}`));
const beside: Job = {
  name: "tests/*.test.ts",
  command: `${tests} ${
    folders.filter((each) => each.name.endsWith(".test.ts")).map(({ name }) => `tests/${name}`).join(" ")
  }`,
  counted: true,
};

const small = "--repeats 3 --samples 1 --schedules naive,1f1b-1";
const others: readonly Job[] = [
  { name: "check", command: task("check") },
  { name: "bundled driver", command: `${bundled} ${ofDriver.join(" ")}` },
  { name: "examples of README, docs, docstrings and examples", command: "deno run -A .ci/examples.ts", writes: true },
  { name: "docs", command: task("docs"), writes: true },
  { name: "notebooks", command: `TWOBP_SCALE=quick ${task("notebooks")}` },
  { name: "cells of the notebooks in Deno", command: "deno run -A --no-check .ci/cells.ts", writes: true },
  { name: "jupyter", command: ".ci/jupyter" },
  // A tenth of what is opened and closed all day.
  { name: "endurance, Deno", command: "deno run -A --no-check .ci/endurance.ts 0.1" },
  { name: "endurance, Node", command: "npx -y tsx@4.23.15 .ci/endurance.ts 0.1" },
  { name: "the package in projects of other people", command: "deno run -A --no-check .ci/consumer.ts" },
  { name: "tests of time", command: `${tests} ${timed.join(" ")}`, counted: true, alone: true },
  { name: "tests of time, bundled driver", command: `${bundled} tests/gpu/devices.test.ts`, alone: true },
  { name: "small bench, Deno", command: `${task("bench")} ${small} --json - > /dev/null`, alone: true },
  { name: "small bench, Bun", command: `npx -y bun@1.4.5 bench/throughput.ts ${small}`, alone: true },
  { name: "small bench, Node", command: `npx -y tsx@4.23.15 bench/main.ts ${small}`, alone: true },
];

/** The longest first, so that no core is idle at the end; what is not named comes behind them. */
const longest = [
  ...["check", "tests/runtime", "examples of README, docs, docstrings and examples", "bundled driver", "tests/ops"],
  ...["tests/bench", "tests/measure", "tests/schedules", "tests/layers", "tests/models"],
  ...["the package in projects of other people", "tests/training", "notebooks", "tests/cli"],
];
const rank = ({ name }: Job) => longest.indexOf(name) < 0 ? longest.length : longest.indexOf(name);
const all = [...ofFolders, beside, ...others].toSorted((a, b) => rank(a) - rank(b));
const chosen = process.argv.slice(2);
const strange = [...chosen, ...longest].filter((name) => !all.some((job) => job.name === name));
if (strange.length > 0) {
  throw new Error(`There are no jobs ${strange.join(", ")}; there are ${all.map(({ name }) => name).join(", ")}`);
}
const jobs = all.filter(({ name }) => chosen.length === 0 || chosen.includes(name));

interface Result {
  readonly job: Job;
  readonly output: string;
  readonly failed: boolean;
}

const env = { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}` }; // jobs say deno
const start = performance.now();
const seconds = (since: number) => Math.round((performance.now() - since) / 1000);

let checked: Promise<unknown> | undefined;

async function run(job: Job): Promise<Result> {
  if (job.writes) await checked;
  const result = execute(job);
  if (job.name === "check") checked = result;
  return await result;
}

function execute(job: Job): Promise<Result> {
  const began = performance.now();
  console.log(`${seconds(start)} s: ${job.name} begins`);
  const child = spawn("bash", ["-c", job.command], { env, stdio: ["ignore", "pipe", "pipe"] });
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

/** Runs jobs in their order, so many at a time. */
async function runAll(queue: Job[], lanes: number): Promise<Result[]> {
  const results: Result[] = [];
  const lane = async () => {
    for (let job = queue.shift(); job; job = queue.shift()) results.push(await run(job));
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return results;
}

/** What the last lines of `deno test` count. */
function counts({ output, failed }: Result): { passed: number; failures: number } {
  // deno-lint-ignore no-control-regex -- colours
  const plain = output.replace(/\x1b\[[0-9;]*m/g, "");
  const [, passed, failures] = /^(?:ok|FAILED) \| (\d+) passed.* \| (\d+) failed/m.exec(plain) ?? [];
  // Where the process died, no test has failed, and yet it is a failure.
  return { passed: Number(passed ?? 0), failures: Number(failures ?? 0) || (failed ? 1 : 0) };
}

execFileSync("bash", ["-c", task("setup")], { env, stdio: "inherit" });
const results = [
  ...await runAll(jobs.filter(({ alone }) => !alone), availableParallelism()),
  ...await runAll(jobs.filter(({ alone }) => alone), 1),
];
const failed = results.filter((result) => result.failed);
for (const { job, output } of failed) {
  console.log(`\n=== Once more, the end of ${job.name}, which failed:\n$ ${job.command}`);
  console.log(output.trimEnd().split("\n").slice(-150).join("\n"));
}
console.log(
  `\n${results.length} jobs in ${seconds(start)} s, ${failed.length} failed: ${
    failed.map(({ job }) => job.name).join(", ") || "none"
  }`,
);
const totals = results.filter(({ job }) => job.counted).map(counts);
const sum = (name: "passed" | "failures") => totals.reduce((total, each) => total + each[name], 0);
console.log(`${sum("passed")} passed, ${sum("failures")} failed`);
process.exit(failed.length > 0 ? 1 : 0);
