/**
 * `deno task bench gpu`: what is to be known of a machine with a GPU, in one command of under ten minutes that writes one folder. Its
 * parts are the other benches, doctor and tests, each in a process of its own.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join, resolve, sep } from "node:path";
import process from "node:process";
import { Command } from "commander";
import { UserError } from "twobp";
import * as flag from "../lib/cli/flags.ts";
import { listOf, main, real } from "../lib/cli/options.ts";
import { describeMachine } from "../lib/measure/machine.ts";
import { checkOutputFolder, writeOutput } from "../lib/output.ts";
import { type GpuDay, isFaulty, type Outcome } from "./gpu_day/outcome.ts";
import { allParts, type Part } from "./gpu_day/parts.ts";
import { runPart, withoutPaths } from "./gpu_day/run_part.ts";
import { findingsOf } from "./gpu_day/found.ts";
import { summary } from "./gpu_day/summary.ts";

/** Below this a part only starts its process. */
const leastSeconds = 3;

const all = allParts();
const names = all.map(({ name }) => name);

interface Options {
  out?: string;
  parts: string[];
  minutes?: number;
  quick?: boolean;
  python?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const gpu = new Command("gpu")
  .description(
    "A GPU day: doctor, tests, kernels, throughput, the paper and PyTorch's numbers, each with its share of the time, into one " +
      "folder with a summary. Ends with code 1 where a part failed or ran out of time.",
  )
  .option("--out <folder>", "a new folder for all of it (default: gpu-day-DATE)")
  .addOption(flag.option("--parts <a,b>", `what to run: ${names.join(", ")} (default: all)`, listOf(names)))
  .option("--minutes <n>", "time for all of it, 0.01 to 1440 (default: 9, with --quick 3)", real(0.01, 1440))
  .option("--quick", "sizes that only show whether it runs, on a software driver too")
  .option("--python <path>", "a Python that has PyTorch, to be measured beside")
  .action(run);

async function run({ out, parts: asked, quick = false, minutes = quick ? 3 : 9, python: given }: Options) {
  const folder = resolve(out ?? `gpu-day-${new Date().toISOString().slice(0, 10)}`);
  const parts = all.filter(({ name }) => asked?.includes(name) ?? true);
  const python = given?.includes(sep) ? resolve(given) : given;
  checkOutputFolder("--out", folder);
  if (python !== undefined) expectTorch(python);
  mkdirSync(folder, { recursive: true });
  const say = (line: string) => writeOutput("-", `${line}\n`);
  const outcomes: Outcome[] = [];
  const machine = describeMachine();
  const command = withoutPaths(`bench ${process.argv.slice(2).join(" ")}`, folder, python);
  const end = performance.now() + 60_000 * minutes;
  for (const [at, part] of parts.entries()) {
    // What one leaves over the next ones have.
    const weights = parts.slice(at).reduce((sum, { weight }) => sum + weight, 0);
    const seconds = Math.max(0, end - performance.now()) / 1000 * part.weight / weights;
    const missing = whyNot(part, seconds, folder, python);
    if (missing === undefined) say(`${part.name}: ${part.what}, ${seconds.toFixed(0)} s at most`);
    const outcome: Outcome = missing === undefined
      ? await runPart(part, folder, { quick, seconds, python })
      : { name: part.name, status: "skipped", seconds: 0, limit: Math.round(seconds), reason: missing };
    const { status, reason } = outcome;
    say(`${part.name}: ${status}, ${outcome.seconds.toFixed(1)} s${reason === undefined ? "" : `: ${reason}`}`);
    outcomes.push(outcome);
    // After each part, so that whatever ends the day leaves what there is.
    const day: GpuDay = { schema: 1, command, machine, quick, minutes, parts: outcomes };
    writeOutput(join(folder, "report.json"), `${JSON.stringify(day, null, 1)}\n`);
    const what = (name: string) => all.find((each) => each.name === name)!.what;
    writeOutput(join(folder, "summary.md"), summary(day, findingsOf(folder), what));
  }
  say(`${join(out ?? folder, "summary.md")} has it all together.`);
  if (outcomes.some(isFaulty)) process.exit(1);
}

/** Why a part cannot run here, or not any more. */
function whyNot({ needs }: Part, seconds: number, folder: string, python?: string): string | undefined {
  if (needs === "python" && python === undefined) return "needs --python with PyTorch";
  if (needs === "deno" && !process.versions.deno) return "the tests are run in Deno alone";
  if (needs === "f16" && findingsOf(folder).doctor?.devices?.f16 === false) return "the device has no 16-bit floats";
  if (seconds < leastSeconds) return `the time is over: ${seconds.toFixed(1)} s were left for it`;
}

/** @throws {UserError} When a Python has no PyTorch. */
function expectTorch(python: string): void {
  try {
    execFileSync(python, ["-c", "import torch"], { stdio: "ignore", timeout: 60_000 });
  } catch {
    throw new UserError(`--python ${python} cannot import torch: give a Python that has PyTorch`);
  }
}

if (import.meta.main) await main(gpu);
