/** `deno task schedule plan`: the fastest schedule, policy and recomputation within a budget of memory, without a GPU. */
import { basename } from "node:path";
import { Command } from "commander";
import { createModel } from "../models/registry.ts";
import { plan } from "../planning/plan.ts";
import { clusterLines, gaveUp, planJson, planTable } from "../report/plan.ts";
import { progress, type ProgressLine } from "../report/progress.ts";
import { tableText } from "../report/table.ts";
import type { Precision } from "../runtime/pipeline.ts";
import { toCsv } from "../schedules/csv/csv.ts";
import { escaped } from "../text.ts";
import * as flag from "./flags.ts";
import { bytes, integer } from "./options.ts";
import { loadCluster } from "./load_cluster.ts";
import { openOutputs } from "./outputs.ts";
import { warnOfWideCsv } from "./wide_csv.ts";

interface Flags {
  model: string;
  devices?: number;
  microbatches?: number;
  samples: number;
  budget: number;
  precision: Precision;
  cluster?: string;
  json?: string;
  csv?: string;
  html?: string;
  out?: string;
}

/** The command line. */
export function planCommand(): Command {
  return new Command("plan")
    .description("Choose the fastest schedule, 2BP policy and recomputation of a model that fit a budget of memory.")
    .addOption(flag.model().makeOptionMandatory())
    .requiredOption("--budget <size>", "memory of each device: 24GiB, 800MiB, 16e9", bytes)
    .option("--devices <n>", "pipeline ranks, 1 to 64 (default: 4, or the ranks of --cluster)", integer(1, 64))
    .addOption(flag.microbatches(1024, "two a rank"))
    .addOption(flag.samples(1))
    .addOption(flag.precision())
    .option(
      "--cluster <file>",
      "times of each stage, of messages, hosts and ends of steps, in milliseconds, in place of counted work: JSON that " +
        "schedule import writes, of this model, cut by work, at these samples and this precision. Only schedules of the file's " +
        "number of stages are tried; what is recomputed is added at the stage's time an operation",
    )
    .addOption(flag.json("the plan"))
    .addOption(flag.csv())
    .addOption(flag.html("the plan"))
    .addOption(flag.out())
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  const out = openOutputs(flags);
  const cluster = flags.cluster === undefined ? undefined : loadCluster(flags.cluster);
  const file = flags.cluster === undefined ? undefined : escaped(basename(flags.cluster));
  const { samples, budget, precision, devices = cluster?.ranks ?? 4, microbatches = 2 * devices } = flags;
  const model = createModel(flags.model);
  const options = { devices, microbatches, samples, budget, precision, ...cluster && { cluster } };
  let bar: ProgressLine | undefined; // none where the options are refused
  const onProgress = (share: number) => (bar ??= progress(100, "percent")).to(Math.round(100 * share));
  const result = await plan(model, { ...options, onProgress }).finally(() => bar?.done());
  const title =
    `${model.name} on ${devices} ranks, ${microbatches} micro-batches of ${samples}, ${precision} (predicted)`;
  const table = planTable(result, budget);
  const said = [gaveUp(result), ...file === undefined ? [] : clusterLines(result, file)].join("\n");
  out.say(title);
  out.say(tableText(table));
  out.say(said);
  if (flags.csv || flags.out) warnOfWideCsv(result.schedule);
  await out.results("schedule", {
    title,
    report: planJson(model, options, result, file),
    sections: () => [{ heading: "Plan", text: said, table }],
    csv: () => toCsv(result.schedule),
  });
}
