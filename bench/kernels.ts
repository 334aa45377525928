/** `deno task bench kernels`: every candidate of every operation, checked, timed, and held against the device's peak. */
import process from "node:process";
import { Command } from "commander";
import { integer, listOf, main, oneOf } from "../lib/cli/options.ts";
import { UserError } from "../lib/errors.ts";
import { openDevices } from "../lib/gpu/devices.ts";
import { problemsOf } from "../lib/measure/calibrate.ts";
import { measureKernels } from "../lib/measure/kernels.ts";
import { describeMachine } from "../lib/measure/machine.ts";
import { standardProblems } from "../lib/measure/standard_problems.ts";
import { createModel, modelNames } from "../lib/models/registry.ts";
import { operations } from "../lib/ops/choice.ts";
import { type Precision, precisions } from "../lib/runtime/pipeline.ts";
import { writePage } from "../lib/report/html.ts";
import { kernelsNotes, kernelsSections, kernelsTable, kernelsTitle } from "../lib/report/kernels.ts";
import { checkOutputs, writeOutput } from "../lib/output.ts";
import { showLine } from "../lib/report/progress.ts";
import { tableText } from "../lib/report/table.ts";

interface Options {
  operations?: string[];
  model: string;
  samples: number;
  precision: Precision;
  repeats: number;
  all?: boolean;
  json?: string;
  html?: string;
}

const names = () => operations().map(({ name }) => name);

/** The command line; `bench/main.ts` adds it to the others. */
export const kernels = new Command("kernels")
  .description("Times of every kernel that an operation can choose from, on a model's problems and some standard ones.")
  .option("--operations <a,b>", `some of ${names().join(", ")} (default: all)`, listOf(names()))
  .option("--model <name>", `whose problems: ${modelNames.join(", ")}`, oneOf(modelNames), "llama-tiny")
  .option("--samples <n>", "samples in a micro-batch, 1 to 65536", integer(1, 65_536), 4)
  .option("--precision <p>", `what tensors hold: ${precisions.join(" or ")}`, oneOf(precisions), "f32")
  .option("--repeats <n>", "rounds, in each of which every candidate has a turn, 1 to 1000", integer(1, 1000), 7)
  .option("--all", "also candidates that cannot win on a software driver and take seconds to compile")
  .option("--json <file>", "write the results as JSON (- for standard output)")
  .option("--html <file>", "write a page with a figure and the tables")
  .action(run);

async function run(options: Options): Promise<void> {
  checkOutputs({ "--json": options.json, "--html": options.html });
  const say = options.json === "-" || options.html === "-" ? console.error : console.log;
  const set = await openDevices(1);
  try {
    const [device] = set.devices;
    const { precision } = options;
    if (precision === "mixed" && !device.gpu.info.f16) {
      throw new UserError(`${device.gpu.info.name} has no 16-bit floats`);
    }
    const found = [
      ...await standardProblems(device.gpu, precision === "mixed" ? "f16" : "f32"),
      ...await problemsOf(createModel(options.model), options.samples, device.gpu, { precision }),
    ];
    const wanted = found.filter(({ operation }) => options.operations?.includes(operation.name) ?? true);
    if (wanted.length === 0) {
      throw new UserError(
        `${options.model} has no problem of ${options.operations?.join(" or ")}; try another --model`,
      );
    }
    let done = 0;
    const report = await measureKernels(device, wanted, {
      rounds: options.repeats,
      ...(options.all ? { all: true } : {}),
      onProblem: () => showLine(`${++done} of ${wanted.length} problems`),
    });
    showLine("");
    say(`${kernelsTitle(report)}.`);
    say(tableText(kernelsTable(report)));
    for (const note of kernelsNotes(report)) say(note);
    const settings = {
      model: options.model,
      samples: options.samples,
      precision,
      command: `bench ${process.argv.slice(2).join(" ")}`.trim(),
      machine: describeMachine(),
    };
    if (options.json) writeOutput(options.json, JSON.stringify({ ...report, ...settings }, null, 1) + "\n");
    if (options.html) writePage(options.html, "Kernels", kernelsSections(report));
  } finally {
    set.close();
  }
}

if (import.meta.main) await main(kernels);
