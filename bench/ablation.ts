/** `deno task bench ablation`: where the gain of 2BP on one schedule comes from, a factor for each of several things. */
import { Command } from "commander";
import * as flag from "../lib/cli/flags.ts";
import { integer, main, oneOf, real } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import { countAblationSteps, measureAblation } from "../lib/measure/ablation.ts";
import { createModel } from "../lib/models/registry.ts";
import {
  ablationNotes,
  ablationPredictionTable,
  ablationSections,
  ablationTable,
  ablationTitle,
  stallTable,
} from "../lib/report/ablation.ts";
import { progress } from "../lib/report/progress.ts";
import { tableText } from "../lib/report/table.ts";
import { createPipeline, type Precision } from "../lib/runtime/pipeline.ts";
import { paperSchedules } from "../lib/schedules/transforms/pair.ts";
import { adamw } from "../lib/train/optimizers.ts";
import { sourceFor } from "./data.ts";

interface Options {
  model: string;
  devices: number;
  virtual?: boolean;
  schedule: string;
  repeats: number;
  samples: number;
  stall: number;
  precision: Precision;
  data?: string;
  seed: number;
  json?: string;
  html?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const ablation = new Command("ablation")
  .description("Where the gain of 2BP comes from: bubble, concatenated W, products per sample, stored scores, a stall.")
  .addOption(flag.model("paper-transformer-tiny"))
  .option("--devices <n>", "pipeline ranks, 2 to 16", integer(2, 16), 4)
  .addOption(flag.virtual())
  .option("--schedule <name>", `one of ${paperSchedules.join(", ")}`, oneOf(paperSchedules), "1f1b-1")
  .addOption(flag.repeats("rounds, in each of which every rung has a step without 2BP and one with", 11))
  .addOption(flag.samples(4))
  .option("--stall <ms>", "of the last rank after each backward without 2BP, on the highest rung", real(0, 1e6), 5)
  .addOption(flag.precision())
  .addOption(flag.data())
  .addOption(flag.seed())
  .addOption(flag.json())
  .addOption(flag.html())
  .action(run);

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { say } = out;
  const { devices, virtual, schedule, repeats, samples, stall: stallMs, precision, seed } = options;
  const model = createModel(options.model);
  const { name: data, source } = sourceFor(model, options.data, seed);
  await withDevices(devices, { virtual, say }, async (set) => {
    const optimizer = adamw({ learningRate: 1e-4, weightDecay: 0 });
    const pipeline = createPipeline(set, model, { optimizer, seed, precision });
    const bar = progress(countAblationSteps({ repeats }));
    try {
      const report = await measureAblation(set, pipeline, {
        ...{ schedule, repeats, samples, stallMs, source },
        onStep: (loss) => bar.step(`loss ${loss.toFixed(3)}`),
      }).finally(bar.done);
      say(`\n${ablationTitle(report)}\n${tableText(ablationTable(report))}`);
      if (report.predictions.length > 0) {
        say(tableText(ablationPredictionTable(report)));
        say(tableText(stallTable(report)));
      }
      for (const note of ablationNotes(report)) say(note);
      say(`Data: ${data}.`);
      out.report("bench", { ...report, data, seed });
      out.page("Where the gain of 2BP comes from", () => ablationSections(report));
    } finally {
      pipeline.close();
    }
  });
}

if (import.meta.main) await main(ablation);
