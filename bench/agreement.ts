/** `deno task bench agreement`: virtual devices against real ones, measured in turn in one run. */
import process from "node:process";
import { Command } from "commander";
import { integer, listOf, main, oneOf } from "../lib/cli/options.ts";
import { openDevices } from "../lib/gpu/devices.ts";
import { measureAgreement } from "../lib/measure/agreement.ts";
import { describeMachine } from "../lib/measure/machine.ts";
import { startMeasurement } from "../lib/measure/throughput.ts";
import { createModel, modelNames } from "../lib/models/registry.ts";
import { createPipeline } from "../lib/runtime/pipeline.ts";
import { checkOutputs, writeOutput } from "../lib/output.ts";
import { tableText } from "../lib/report/table.ts";
import { throughputNotes } from "../lib/report/throughput.ts";
import { adamw } from "../lib/train/optimizers.ts";
import { sourceFor } from "./data.ts";
import { baseSchedules, paperSchedules, schedulePair, stepBar } from "./throughput.ts";

interface Options {
  model: string;
  devices: number;
  schedules: string[];
  repeats: number;
  samples: number;
  json?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const agreement = new Command("agreement")
  .description("Step times and gains of virtual devices over those of real ones, in interleaved rounds.")
  .option("--model <name>", `model to train: ${modelNames.join(", ")}`, oneOf(modelNames), "llama-tiny")
  .option("--devices <n>", "pipeline ranks, 2 to 16, all of which must be real ones too", integer(2, 16), 2)
  .option("--schedules <a,b>", `any of ${baseSchedules.join(", ")}`, listOf(baseSchedules), paperSchedules)
  .option("--repeats <n>", "rounds, 1 to 10000", integer(1, 10_000), 11)
  .option("--samples <n>", "samples in a micro-batch, 1 to 65536", integer(1, 65_536), 16)
  .option("--json <file>", "write the results as JSON (- for standard output)")
  .action(run);

async function run({ model: name, devices, schedules, repeats, samples, json }: Options): Promise<void> {
  checkOutputs({ "--json": json });
  const say = json === "-" ? console.error : console.log;
  const pairs = schedules.map((name) => schedulePair(name, devices));
  const bar = stepBar(4 * pairs.length * (repeats + 1));
  const sets = [await openDevices(devices, { virtual: false })];
  try {
    sets.push(await openDevices(devices, { virtual: true }));
    const measurements = sets.map((set) => {
      const model = createModel(name);
      const { source } = sourceFor(model, undefined, 1);
      const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 1e-3 }), seed: 1 });
      const onStep = (loss: number) => bar.increment({ loss: loss.toFixed(3) });
      return startMeasurement(set, pipeline, { pairs, source, samples, onStep });
    });
    const report = await measureAgreement(measurements[0], measurements[1], repeats);
    bar.stop();
    const ratio = ({ ratio, spread }: { ratio: number; spread: readonly [number, number] }) =>
      `${ratio.toFixed(3)} (${spread.map((each) => each.toFixed(3)).join(" - ")})`;
    say(
      `\n${name} on ${devices} devices, ${report.real.adapter}; virtual over real, median (quartiles) of ${repeats} rounds`,
    );
    say(tableText({
      columns: ["schedule", "step", "step with 2BP", "gain", "each device alone: step", "step with 2BP", "gain"],
      rows: report.rows.map(({ schedule, uncontended, ...contended }) => [
        schedule,
        ...[contended, uncontended].flatMap(({ step, gain }) => [...step.map(ratio), ratio(gain)]),
      ]),
    }));
    say(
      `Contention ${
        report.contention.toFixed(3)
      }: so many times as long an action takes on a device while all others are busy ` +
        "(by the device times of both kinds of steps).",
    );
    for (const each of [report.real, report.virtual]) say(throughputNotes(each)[1]);
    const command = `bench ${process.argv.slice(2).join(" ")}`.trim();
    if (json) writeOutput(json, JSON.stringify({ ...report, command, machine: describeMachine() }, null, 1) + "\n");
  } finally {
    sets.forEach((set) => set.close());
  }
}

if (import.meta.main) await main(agreement);
