/** `deno task bench memory`: peak memory of each schedule, predicted from shapes and measured, by device and category. */
import { Command } from "commander";
import process from "node:process";
import { integer, listOf, main, oneOf, reading } from "../lib/cli/options.ts";
import { UserError } from "../lib/errors.ts";
import { openDevices } from "../lib/gpu/devices.ts";
import { describeMachine } from "../lib/measure/machine.ts";
import { blankBatch, dryPipeline, reportMemory } from "../lib/measure/memory.ts";
import { stageMemories } from "../lib/measure/stage_memory.ts";
import { createModel, modelNames } from "../lib/models/registry.ts";
import { partition } from "../lib/runtime/partition.ts";
import { type Precision, precisions } from "../lib/runtime/pipeline.ts";
import { parseRecompute, type RecomputeText } from "../lib/runtime/recompute.ts";
import type { StepResult } from "../lib/runtime/step.ts";
import { writePage } from "../lib/report/html.ts";
import { memorySections, memoryTable } from "../lib/report/memory.ts";
import { checkOutputs, writeOutput } from "../lib/output.ts";
import { showLine } from "../lib/report/progress.ts";
import { tableText } from "../lib/report/table.ts";
import { generate } from "../lib/schedules/generators/generate.ts";
import type { PolicyText } from "../lib/schedules/schedule.ts";
import { formatPolicy, parsePolicy } from "../lib/schedules/transforms/policy.ts";
import { twoStage } from "../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../lib/train/optimizers.ts";
import { runGrowth } from "./growth.ts";
import { paperSchedules } from "./throughput.ts";
import { sizesOf } from "../lib/schedules/check/sizes.ts";

interface Options {
  model: string;
  devices: number;
  virtual?: boolean;
  predict?: boolean;
  schedules: string[];
  policies: PolicyText[];
  recompute: RecomputeText[];
  precision: Precision;
  width: number;
  samples?: number;
  steps?: number;
  json?: string;
  html?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const memory = new Command("memory")
  .description(
    "Peak memory of pipeline schedules without and with 2BP, by device and category: predicted and measured.",
  )
  .option("--model <name>", `model: ${modelNames.join(", ")}`, oneOf(modelNames), "llama-tiny")
  .option("--devices <n>", "pipeline ranks, 1 to 64", integer(1, 64), 2)
  .option("--virtual", "run all ranks on one device (default where devices are too few)")
  .option("--predict", "run nothing: predictions alone, for a model of any size")
  .option("--schedules <a,b>", `any of ${paperSchedules.join(", ")}`, listOf(paperSchedules), paperSchedules)
  .option(
    "--policies <a,b>",
    "of 2BP: fill, lean, end, mid, every:k, cap:BYTES (64MiB for example)",
    reading((text) => text.split(",").map((each) => formatPolicy(parsePolicy(each)))),
    ["fill", "lean", "end", "mid", "every:2"] as PolicyText[],
  )
  .option("--width <k>", "micro-batches that a W concatenates, 1 to 64", integer(1, 64), 1)
  .option(
    "--recompute <a,b>",
    "what to compute again, a row for each: none, activations, derivatives, both, each perhaps with :N for the first N layers of a stage",
    reading((text) => text.split(",").map(parseRecompute)),
    ["none"],
  )
  .option("--precision <p>", `what tensors hold: ${precisions.join(" or ")}`, oneOf(precisions), "f32")
  .option("--samples <n>", "samples in a micro-batch, 1 to 65536; 4 by default", integer(1, 65_536))
  .option(
    "--steps <n>",
    "instead: repeat a step of the first schedule (1f1b-1 by default), with 2BP of the first policy, this often (10 to 1000000; 1000 of llama-tiny take " +
      "a minute or two) and tell whether memory grows; micro-batches of 1 sample by default",
    integer(10, 1_000_000),
  )
  .option("--json <file>", "write the results as JSON (- for standard output)")
  .option("--html <file>", "write a page with figures and the table")
  .action(run);

async function run({ policies, recompute, ...options }: Options): Promise<void> {
  const { steps, samples = steps ? 1 : 4 } = options;
  if (steps && (options.predict || options.html)) {
    throw new UserError(
      `--steps runs a pipeline and prints lines: it goes without --${options.predict ? "predict" : "html"}`,
    );
  }
  checkOutputs({ "--json": options.json, "--html": options.html });
  const say = options.json === "-" || options.html === "-" ? console.error : console.log;
  const model = () => createModel(options.model);
  partition(model(), options.devices); // explains too many devices before one is opened
  const bases = options.schedules.map((name) => generate(name, { devices: options.devices }));
  const set = options.predict ? undefined : await openDevices(options.devices, { virtual: options.virtual });
  try {
    if (set?.notice) say(`${set.notice}.`);
    const { software = false, subgroupSize = 0 } = set?.devices[0].gpu.info ?? {};
    const shape = { optimizer: adamw(), software, subgroupSize, precision: options.precision };
    if (steps) {
      const command = {
        model: options.model,
        recompute: recompute[0],
        precision: options.precision,
        samples,
        steps,
        say,
      };
      const base = options.schedules === paperSchedules ? generate("1f1b-1", { devices: options.devices }) : bases[0];
      const schedule = twoStage(base, { policy: policies[0], width: options.width });
      return await runGrowth(set!, { ...command, schedule, json: options.json });
    }
    // One stage a rank in all of these schedules; policies are made for the first kind of recomputation.
    const stages = await stageMemories(model(), {
      ...shape,
      stages: options.devices,
      samples,
      recompute: recompute[0],
    });
    const memory = (stage: number) => stages[stage];
    const schedules = bases.flatMap((base) => [
      base,
      ...policies.map((policy) => twoStage(base, { policy, width: options.width, memory })),
    ]);
    let done = 0;
    const report = await reportMemory(model, {
      schedules,
      samples,
      recompute,
      precision: options.precision,
      optimizer: adamw(),
      ...(set ? { set } : {}),
      onRow: () => showLine(`${++done} of ${schedules.length * recompute.length} rows`),
    });
    showLine("");
    const on = set
      ? `${set.devices.length} ${set.mode} devices, ${set.adapter}`
      : `${options.devices} devices, predicted`;
    say(`Peak MiB of ${report.model.name} on ${on}; micro-batches of ${samples}; ${report.precision}; AdamW`);
    say(tableText(memoryTable(report)));
    const command = `bench ${process.argv.slice(2).join(" ")}`.trim();
    if (options.json) {
      writeOutput(options.json, JSON.stringify({ ...report, command, machine: describeMachine() }, null, 1) + "\n");
    }
    if (options.html) {
      const timelines = new Map<string, NonNullable<StepResult["timeline"]>>();
      for (const schedule of schedules) {
        const pipeline = dryPipeline(model(), options.devices, {
          ...shape,
          placement: schedule.placement,
          recompute: recompute[0],
        });
        const batch = blankBatch(model(), samples * sizesOf(schedule).microbatches);
        const { timeline } = await pipeline.step(schedule, batch, { timeline: true });
        pipeline.close();
        timelines.set(`${schedule.name}, ${schedule.policy ?? "without 2BP"}: memory over time, predicted`, timeline!);
      }
      writePage(options.html, "Memory of schedules", memorySections(report, timelines));
    }
  } finally {
    set?.close();
  }
}

if (import.meta.main) await main(memory);
