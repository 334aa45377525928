/** `deno task bench loop`: what `train()` costs over `pipeline.step()` in a loop, without evaluations and checkpoints. */
import { Command } from "commander";
import { adamw, createModel, createPipeline } from "twobp";
import { kept, median, medianInterval, quartiles } from "twobp/measure";
import { countParameters } from "twobp/models";
import { progress } from "twobp/report";
import { partition } from "twobp/runtime";
import { sizesOf } from "twobp/schedules";
import { constantRate } from "twobp/train";
import * as flag from "../lib/cli/flags.ts";
import { loadPairs } from "../lib/cli/load_schedule.ts";
import { main } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { quietCheck } from "../lib/cli/quiet_check.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import { sourceFor } from "./data.ts";
import { clock, inTurns, steppedTraining, type Stepper, type TimedStep } from "./in_turns.ts";

interface Options {
  model: string;
  schedule: string;
  devices?: number;
  virtual?: boolean;
  samples: number;
  repeats: number;
  seed: number;
  quietCheck?: boolean;
  json?: string;
}

/** Rounds at the beginning that are not counted: kernels are compiled and chosen, and buffers made. */
const warmUp = 10;

/** The command line; `bench/main.ts` adds it to the others. */
export const loop = new Command("loop")
  .description("The time of an update of train() over that of pipeline.step() in a loop, in turns; with 2BP.")
  .addOption(flag.model("llama-tiny"))
  .option("--schedule <name>", "a schedule, or a CSV file of one", "1f1b-1")
  .addOption(flag.devices(1, 16, 2))
  .addOption(flag.virtual("run all ranks on one device, in turn"))
  .addOption(flag.samples(1))
  .addOption(flag.repeats("pairs of updates", 300))
  .addOption(flag.seed())
  .addOption(flag.quietCheck())
  .addOption(flag.json())
  .action(run);

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { devices, virtual, samples, repeats, seed } = options;
  const model = createModel(options.model);
  const [{ split: schedule }] = loadPairs([options.schedule], devices, 2);
  partition(model, schedule.placement); // explains too many stages
  const inBatch = samples * sizesOf(schedule).microbatches, steps = warmUp + repeats;
  const learningRate = constantRate(), clip = 1;
  const noise = await quietCheck(options, out.say);
  const bar = progress(steps, "updates of each");
  const report = await withDevices(schedule.actions.length, { virtual, say: out.say }, async (set) => {
    const make = () => createPipeline(set, model, { optimizer: adamw(), placement: schedule.placement, seed });
    const pipelines = [make(), make()];
    const { name: data, source } = sourceFor(model, undefined, seed), own = sourceFor(model, undefined, seed).source;
    const byTrain = steppedTraining(pipelines[0], {
      schedule,
      data: source,
      samples: inBatch,
      steps,
      learningRate,
      clip,
    });
    let step = 0;
    const byHand: Stepper = {
      async next(): Promise<TimedStep | undefined> {
        if (step === steps) return undefined;
        const since = clock();
        const batch = await own.next(inBatch);
        const { loss } = await pipelines[1].step(schedule, batch, { rate: learningRate(step), clip });
        step++;
        return { loss, ...since() };
      },
    };
    const times: [train: TimedStep[], step: TimedStep[]] = [[], []];
    try {
      await inTurns([byTrain, byHand], (made, round) => {
        if (made[0].loss !== made[1].loss) {
          throw new Error(`In round ${round} train() has a loss of ${made[0].loss}, the loop one of ${made[1].loss}`);
        }
        if (round >= warmUp) made.forEach((each, at) => times[at].push(each));
        bar.step(`loss ${made[0].loss.toFixed(3)}`);
      });
    } finally {
      pipelines.forEach((pipeline) => pipeline.close());
    }
    return {
      schema: 1,
      ...{ mode: set.mode, devices: set.devices.length, adapter: set.adapter },
      model: { name: model.name, parameters: countParameters(model), ...model.configuration },
      ...{ schedule: schedule.name, twoStage: true, samples, seed, data },
      ...{ ms: compared(times, "ms"), cpuMs: compared(times, "cpuMs") },
    };
  }).finally(bar.done);
  const line = (what: string, { train, step, ratio }: Compared) =>
    `${what}: train() ${median(train).toFixed(2)} ms, pipeline.step() ${median(step).toFixed(2)} ms; ratio of pairs ` +
    `${ratio.median.toFixed(3)} (${ratio.quartiles.map((each) => each.toFixed(3)).join(" to ")})` +
    (ratio.interval
      ? `, 95 % interval of the median ${ratio.interval.map((each) => each.toFixed(3)).join(" to ")}`
      : "");
  out.say(
    `\n${model.name}, ${schedule.name} with 2BP on ${report.devices} ${report.mode} devices (${report.adapter}); ` +
      `${samples} samples in a micro-batch; ${repeats} pairs of updates, the same losses to the bit.`,
  );
  out.say(line("Time of an update", report.ms));
  out.say(line("Processor time of an update", report.cpuMs));
  await out.results("bench", { title: "train() over pipeline.step() in a loop", report, ...noise, sections: () => [] });
}

/** A time of both ways. */
interface Compared {
  readonly train: readonly number[];
  readonly step: readonly number[];
  /** The first over the second, of pairs; the interval is that of the median, of 6 pairs or more. */
  readonly ratio: {
    readonly median: number;
    readonly quartiles: readonly [number, number];
    readonly interval?: readonly [number, number];
  };
}

function compared([train, step]: readonly (readonly TimedStep[])[], of: "ms" | "cpuMs"): Compared {
  const ratios = train.map((each, at) => each[of] / step[at][of]), interval = medianInterval(ratios);
  return {
    ...{ train: kept(train.map((each) => each[of])), step: kept(step.map((each) => each[of])) },
    ratio: { median: median(ratios), quartiles: quartiles(ratios), ...interval ? { interval } : {} },
  };
}

if (import.meta.main) await main(loop);
