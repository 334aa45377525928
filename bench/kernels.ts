/** `deno task bench kernels`: every candidate of every operation, checked, timed, and held against the device's peak. */
import { Command } from "commander";
import { createModel, UserError } from "twobp";
import { measureKernels, problemsOf, standardProblems } from "twobp/measure";
import { kernelsNotes, kernelsSections, kernelsTable, kernelsTitle, progress, tableText } from "twobp/report";
import type { Precision } from "twobp/runtime";
import { operations } from "twobp/ops";
import * as flag from "../lib/cli/flags.ts";
import { listOf, main, real } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { quietCheck } from "../lib/cli/quiet_check.ts";
import { withDevices } from "../lib/cli/with_devices.ts";

interface Options {
  operations?: string[];
  model: string;
  samples: number;
  precision: Precision;
  repeats: number;
  minutes?: number;
  all?: boolean;
  quietCheck?: boolean;
  json?: string;
  html?: string;
  out?: string;
}

const names = () => operations().map(({ name }) => name);

/** The command line; `bench/main.ts` adds it to the others. */
export const kernels = new Command("kernels")
  .description("Times of every kernel that an operation can choose from, on a model's problems and some standard ones.")
  .option("--operations <a,b>", `some of ${names().join(", ")} (default: all)`, listOf(names()))
  .addOption(flag.model("llama-tiny"))
  .addOption(flag.samples(4))
  .addOption(flag.precision())
  .addOption(flag.repeats("rounds, in each of which every candidate has a turn", 7))
  .option(
    "--minutes <n>",
    "begin no further problem after so long, 0.01 to 1440 (default: all of them)",
    real(0.01, 1440),
  )
  .option("--all", "also candidates that cannot win on a software driver and take seconds to compile")
  .addOption(flag.quietCheck())
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { say } = out;
  await withDevices(1, { say }, async ({ devices: [device] }) => {
    const { model, samples, precision, minutes } = options;
    if (precision === "mixed" && !device.gpu.info.f16) {
      throw new UserError(`${device.gpu.info.name} has no 16-bit floats`);
    }
    const found = [
      ...await standardProblems(device.gpu, precision === "mixed" ? "f16" : "f32"),
      ...await problemsOf(createModel(model), samples, device.gpu, { precision }),
    ];
    const wanted = found.filter(({ operation }) => options.operations?.includes(operation.name) ?? true);
    if (wanted.length === 0) {
      throw new UserError(`${model} has no problem of ${options.operations?.join(" or ")}; try another --model`);
    }
    const noise = await quietCheck(options, say);
    const bar = progress(wanted.length, "problems");
    const report = await measureKernels(device, wanted, {
      rounds: options.repeats,
      ...(options.all ? { all: true } : {}),
      ...(minutes === undefined ? {} : { ms: 60_000 * minutes }),
      onProblem: () => bar.step(),
    }).finally(bar.done);
    say(`${kernelsTitle(report)}.`);
    say(tableText(kernelsTable(report)));
    for (const note of kernelsNotes(report)) say(note);
    await out.results("bench", {
      title: "Kernels",
      report: { ...report, model, samples, precision },
      ...noise,
      sections: () => kernelsSections(report),
    });
    if (device.gpu.lost !== undefined) throw new Error(device.gpu.lost); // what was measured before is kept
  });
}

if (import.meta.main) await main(kernels);
