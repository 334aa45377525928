/**
 * `deno task test`: every folder of tests, side by side, and at the end those that look at time. Folders or files as arguments are run
 * alone, as `deno test` runs them: `deno task test tests/ops`. The last line counts all.
 */
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import process from "node:process";
import { type Job, type Result, runJobs, sorted } from "./jobs.ts";

const test = "deno test -A --no-check";
const asked = process.argv.slice(2);
if (asked.length > 0) {
  const [, ...args] = test.split(" ");
  process.exit(spawnSync(process.execPath, [...args, ...asked], { stdio: "inherit" }).status ?? 1);
}

/** Tests that look at how long something takes, or how many cores there are for it. */
const timed = ["tests/gpu/devices.test.ts", "tests/measure/ablation.test.ts"];

/** Every folder is a job, and the files beside them are one: none is forgotten. */
const entries = readdirSync("tests", { withFileTypes: true });
const hasTests = (folder: string) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" }).some((name) => name.endsWith(".test.ts"));
const folders = entries.filter((each) => each.isDirectory() && hasTests(`tests/${each.name}`)).map(({ name }): Job => ({
  name: `tests/${name}`,
  command: `${test} ${timed.map((file) => `--ignore=${file}`).join(" ")} tests/${name}`,
}));
const beside = entries.filter((each) => each.name.endsWith(".test.ts")).map(({ name }) => `tests/${name}`);
const jobs: readonly Job[] = [
  ...sorted(folders, [
    ...["tests/runtime", "tests/ops", "tests/bench", "tests/measure", "tests/mpi", "tests/cli", "tests/models"],
    ...["tests/training", "tests/schedules", "tests/layers", "tests/planning"],
  ]),
  { name: "tests/*.test.ts", command: `${test} ${beside.join(" ")}` },
  { name: "tests of time", command: `${test} ${timed.join(" ")}`, alone: true },
];

/** What the last lines of `deno test` count. */
function counts({ output, failed }: Result): { passed: number; failures: number } {
  // deno-lint-ignore no-control-regex -- colours
  const plain = output.replace(/\x1b\[[0-9;]*m/g, "");
  const [, passed, failures] = /^(?:ok|FAILED) \| (\d+) passed.* \| (\d+) failed/m.exec(plain) ?? [];
  // Where the process died, no test has failed, and yet it is a failure.
  return { passed: Number(passed ?? 0), failures: Number(failures ?? 0) || (failed ? 1 : 0) };
}

const totals = (await runJobs(jobs)).map(counts);
const sum = (name: "passed" | "failures") => totals.reduce((total, each) => total + each[name], 0);
console.log(`${sum("passed")} passed, ${sum("failures")} failed`);
process.exit(sum("failures") > 0 ? 1 : 0);
