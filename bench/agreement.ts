/** `deno task bench agreement`: virtual devices against real ones, measured in turn in one run. */
import { Command } from "commander";
import { adamw, createModel, createPipeline, type DeviceSet } from "twobp";
import { countSteps, type MakePipeline, measureAgreement, startMeasurement } from "twobp/measure";
import {
  agreementIntervals,
  agreementNotes,
  agreementSections,
  agreementTable,
  agreementTitle,
  progress,
  tableText,
} from "twobp/report";
import { partition } from "twobp/runtime";
import * as flag from "../lib/cli/flags.ts";
import { loadPairs } from "../lib/cli/load_schedule.ts";
import { main } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { quietCheck } from "../lib/cli/quiet_check.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import { sourceFor } from "./data.ts";

interface Options {
  model: string;
  devices?: number;
  schedules: string[];
  repeats: number;
  samples: number;
  quietCheck?: boolean;
  json?: string;
  html?: string;
  out?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const agreement = new Command("agreement")
  .description(
    "Step times and gains of virtual devices over those of as many real ones, in interleaved rounds; the real ones under mpirun in several processes.",
  )
  .addOption(flag.model("llama-tiny"))
  .addOption(flag.devices(2, 16, 2))
  .addOption(flag.schedules())
  .addOption(flag.repeats("rounds", 11))
  .addOption(flag.samples(16))
  .addOption(flag.quietCheck())
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { say } = out;
  const { model: name, devices, schedules, repeats, samples } = options;
  const pairs = loadPairs(schedules, devices, 2);
  const count = pairs[0].base.actions.length;
  const model = createModel(name);
  for (const { base } of pairs) partition(model, base.placement); // explains too many stages
  const noise = await quietCheck(options, say);
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
    { virtual: false, inJob: true, say },
    (real) =>
      // Of several processes the first has the virtual devices, and the others wait for their turns.
      "process" in real && real.process !== 0 ? measureAgreement(measurementOn(real), undefined, repeats) : withDevices(
        count,
        { virtual: true, alone: true, say },
        (virtual) => measureAgreement(measurementOn(real), measurementOn(virtual), repeats),
      ),
  ).finally(bar.done);
  if (!report) return; // the first process says it
  say(`\n${agreementTitle(report)}\n${tableText(agreementTable(report))}\n${tableText(agreementIntervals(report))}`);
  for (const note of agreementNotes(report)) say(note);
  await out.results("bench", {
    title: "Virtual devices over real ones",
    report,
    ...noise,
    sections: () => agreementSections(report),
  });
}

if (import.meta.main) await main(agreement);
