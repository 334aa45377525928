/** `deno task bench agreement`: virtual devices against real ones, measured in turn in one run. */
import { Command } from "commander";
import * as flag from "../lib/cli/flags.ts";
import { loadPairs } from "../lib/cli/load_schedule.ts";
import { main } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import type { DeviceSet } from "../lib/gpu/devices.ts";
import { measureAgreement, type RatioOfRounds } from "../lib/measure/agreement.ts";
import { type MakePipeline, startMeasurement } from "../lib/measure/measurement.ts";
import { countSteps } from "../lib/measure/throughput.ts";
import { createModel } from "../lib/models/registry.ts";
import { partition } from "../lib/runtime/partition.ts";
import { createPipeline } from "../lib/runtime/pipeline.ts";
import { progress } from "../lib/report/progress.ts";
import { tableText } from "../lib/report/table.ts";
import { modeNote } from "../lib/report/throughput.ts";
import { joinedNote } from "../lib/report/variant.ts";
import { adamw } from "../lib/train/optimizers.ts";
import { sourceFor } from "./data.ts";

interface Options {
  model: string;
  devices?: number;
  schedules: string[];
  repeats: number;
  samples: number;
  json?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const agreement = new Command("agreement")
  .description("Step times and gains of virtual devices over those of as many real ones, in interleaved rounds.")
  .addOption(flag.model("llama-tiny"))
  .addOption(flag.devices(2, 16, 2))
  .addOption(flag.schedules())
  .addOption(flag.repeats("rounds", 11))
  .addOption(flag.samples(16))
  .addOption(flag.json())
  .action(run);

async function run({ model: name, devices, schedules, repeats, samples, json }: Options): Promise<void> {
  const out = openOutputs({ json });
  const { say } = out;
  const pairs = loadPairs(schedules, devices, 2);
  const count = pairs[0].base.actions.length;
  const model = createModel(name);
  for (const { base } of pairs) partition(model, base.placement.length); // explains too many stages
  const bar = progress(2 * countSteps({ pairs, repeats }));
  const measurementOn = (set: DeviceSet) => {
    const { source } = sourceFor(model, undefined, 1);
    const optimizer = adamw({ learningRate: 1e-3 });
    const make: MakePipeline = (placement) => createPipeline(set, model, { optimizer, placement, seed: 1 });
    const onStep = (loss: number) => bar.step(`loss ${loss.toFixed(3)}`);
    return startMeasurement(set, make, { pairs, source, samples, onStep });
  };
  const report = await withDevices(
    count,
    { virtual: false, say },
    (real) =>
      withDevices(
        count,
        { virtual: true, say },
        (virtual) => measureAgreement(measurementOn(real), measurementOn(virtual), repeats),
      ),
  ).finally(bar.done);
  const ratio = ({ ratio, spread }: RatioOfRounds) =>
    `${ratio.toFixed(3)} (${spread.map((each) => each.toFixed(3)).join(" - ")})`;
  say(
    `\n${name} on ${count} devices, ${report.real.adapter}; virtual over real, median (quartiles) of ${repeats} rounds`,
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
  for (const note of [...joinedNote(report.real.rows), modeNote(report.real), modeNote(report.virtual)]) say(note);
  out.report("bench", report);
}

if (import.meta.main) await main(agreement);
