/** `deno task schedule plan`: the fastest schedule, policy and recomputation within a budget of memory, without a GPU. */
import { Command } from "commander";
import { createModel, modelNames } from "../models/registry.ts";
import { gaveUp, planJson, planTable } from "../report/plan.ts";
import { plan } from "../planning/plan.ts";
import { type Precision, precisions } from "../runtime/pipeline.ts";
import { checkOutputs, writeOutput } from "../output.ts";
import { progressBar } from "../report/progress.ts";
import { tableText } from "../report/table.ts";
import { toCsv } from "../schedules/csv/csv.ts";
import { bytes, integer, oneOf } from "./options.ts";

interface Flags {
  model: string;
  devices: number;
  microbatches?: number;
  samples: number;
  budget: number;
  precision: Precision;
  json?: string;
  csv?: string;
}

/** The command line. */
export function planCommand(): Command {
  return new Command("plan")
    .description("Choose the fastest schedule, 2BP policy and recomputation of a model that fit a budget of memory.")
    .requiredOption("--model <name>", `model: ${modelNames.join(", ")}`, oneOf(modelNames))
    .requiredOption("--budget <size>", "memory of each device: 24GiB, 800MiB, 16e9", bytes)
    .option("--devices <n>", "pipeline ranks, 1 to 64", integer(1, 64), 4)
    .option("--microbatches <m>", "micro-batches in a step (default: twice the devices)", integer(1, 1024))
    .option("--samples <n>", "samples in a micro-batch", integer(1, 65_536), 1)
    .option("--precision <name>", "f32 or mixed (f16 with f32 master weights)", oneOf(precisions), "f32")
    .option("--json <file>", "write the plan as JSON; - for standard output")
    .option("--csv <file>", "write the schedule as PyTorch's CSV; - for standard output")
    .action(run);
}

async function run({ json, csv, ...flags }: Flags): Promise<void> {
  checkOutputs({ "--json": json, "--csv": csv });
  const say = [json, csv].includes("-") ? console.error : console.log;
  const { devices, samples, budget, precision, microbatches = 2 * devices } = flags;
  const model = createModel(flags.model);
  const options = { devices, microbatches, samples, budget, precision };
  const bar = progressBar("planning {bar} {percentage} %", { clear: true });
  bar.start(1, 0);
  const onProgress = (share: number) => bar.update(share);
  const result = await plan(model, { ...options, onProgress }).finally(() => bar.stop());
  say(`${model.name} on ${devices} devices, ${microbatches} micro-batches of ${samples}, ${precision} (predicted)`);
  say(tableText(planTable(result, budget)));
  say(gaveUp(result));
  if (json) writeOutput(json, `${JSON.stringify(planJson(model, options, result), null, 1)}\n`);
  if (csv) writeOutput(csv, toCsv(result.schedule));
}
