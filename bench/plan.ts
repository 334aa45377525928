/**
 * `deno task bench plan`: what `plan()` gains over equal work in the stages, with the best schedule of the zoo and with plain 1F1B:
 * simulated on counted work, and of models that are run here measured too, the three in turns.
 */
import { Command } from "commander";
import {
  adamw,
  createModel,
  createPipeline,
  type DeviceSet,
  generate,
  type Model,
  plan,
  type Schedule,
  simulate,
} from "twobp";
import { kept, type Measurement, median, medianInterval, startMeasurement } from "twobp/measure";
import { countParameters, modelNames } from "twobp/models";
import { type Planned, stageWork, type TrainingPlan } from "twobp/planning";
import { progress, type ProgressLine, type Table, tableText, variantOf } from "twobp/report";
import { pairOf, sizesOf, stageCosts } from "twobp/schedules";
import * as flag from "../lib/cli/flags.ts";
import { integer, listOf, main } from "../lib/cli/options.ts";
import { openOutputs, type OutputPaths } from "../lib/cli/outputs.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import { sourceFor } from "./data.ts";

interface Options extends OutputPaths {
  models: string[];
  devices: number;
  microbatches?: number;
  samples: number;
  predict?: boolean;
  virtual?: boolean;
  repeats: number;
  seed: number;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const planned = new Command("plan")
  .description("What plan() gains over stages of equal work, with the best schedule and with plain 1F1B.")
  .option("--models <a,b>", "models", listOf(modelNames), ["llama-tiny", "bert-tiny", "mamba-tiny", "resnet-tiny"])
  .option("--devices <n>", "pipeline ranks, 1 to 64", integer(1, 64), 2)
  .addOption(flag.microbatches(1024, "two a rank"))
  .addOption(flag.samples(4))
  .option("--predict", "simulate alone: nothing is run, and models of any size are planned")
  .addOption(flag.virtual())
  .addOption(flag.repeats("steps of each", 31))
  .addOption(flag.seed())
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

/** What is compared: the plan, and what has equal work in its stages. */
const contenders = ["plan", "best", "plain"] as const;
type Contender = (typeof contenders)[number];

/** A plan, and the two that it is compared with. */
interface Compared {
  readonly model: Model;
  readonly found: TrainingPlan;
  /** 1F1B without 2BP, one stage a rank, cut by equal work; and what its step takes, in the plan's unit. */
  readonly plain: { readonly schedule: Schedule; readonly makespan: number };
  /** Step times in milliseconds, where they were measured. */
  readonly steps?: Readonly<Record<Contender, readonly number[]>>;
}

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { devices, microbatches = 2 * devices, samples, predict, virtual, repeats, seed } = options;
  const bar = progress(options.models.length * (predict ? 1 : 1 + repeats), predict ? "models" : "rounds");
  const planOf = async (name: string, of: Pick<Parameters<typeof plan>[1], "kind" | "subgroupSize"> = {}) => {
    const model = createModel(name);
    const found = await plan(model, { devices, microbatches, samples, budget: Infinity, ...of });
    bar.step(name);
    const schedule = generate("1f1b", { devices, microbatches });
    const { makespan } = simulate(schedule, stageCosts(stageWork(model, { stages: devices, samples })));
    return { model, found, plain: { schedule, makespan } };
  };
  const measured = predict ? undefined : await withDevices(devices, { virtual, say: out.say }, async (set) => {
    const { kind, subgroupSize } = set.devices[0].gpu.info, rows: Compared[] = [];
    for (const name of options.models) {
      const one = await planOf(name, { kind, subgroupSize });
      rows.push({ ...one, steps: await measure(set, one, options, bar) });
    }
    return { rows, mode: set.mode, adapter: set.adapter };
  }).finally(bar.done);
  const rows: Compared[] = measured?.rows ?? [];
  if (!measured) { for (const name of options.models) rows.push(await planOf(name).finally(bar.done)); }
  const title = `Plans for ${devices} ranks, ${microbatches} micro-batches of ${samples} (${
    measured ? `simulated, and ${measured.mode}, ${measured.adapter}` : "simulated"
  })`;
  const table = tableOf(rows);
  out.say(title);
  out.say(tableText(table));
  await out.results("bench", {
    title,
    report: {
      ...{ schema: 1, mode: measured?.mode ?? "simulated", devices, microbatches, samples, seed },
      ...measured ? { adapter: measured.adapter, repeats } : {},
      rows: rows.map((row) => ({
        model: { name: row.model.name, parameters: countParameters(row.model) },
        ...Object.fromEntries(
          contenders.map((each) => [each, described(plannedOf(row, each))]),
        ),
        predicted: { best: predicted(row, "best"), plain: predicted(row, "plain") },
        ...row.steps
          ? { measured: { best: gainOf(row.steps, "best"), plain: gainOf(row.steps, "plain") }, stepMs: row.steps }
          : {},
      })),
    },
    sections: () => [{ heading: "Plans", table }],
  });
}

/** What runs. */
function plannedOf({ found, plain }: Compared, contender: Contender): Partial<Planned> & { schedule: Schedule } {
  return contender === "plan" ? found : contender === "best" ? found.equal : plain;
}

/** The step times of all three, in turns, each round from the other end. */
async function measure(
  set: DeviceSet,
  one: Compared,
  { samples, repeats, seed }: Options,
  bar: ProgressLine,
): Promise<Record<Contender, number[]>> {
  const { model } = one;
  const steps: Record<Contender, number[]> = { plan: [], best: [], plain: [] };
  const running: { name: Contender; measurement: Measurement; isSplit: boolean }[] = [];
  try {
    for (const name of contenders) {
      const { schedule, parts, recompute, sums } = plannedOf(one, name), isSplit = sizesOf(schedule).split;
      const make = (placement: readonly number[]) =>
        createPipeline(set, model, { optimizer: adamw(), placement, parts, recompute, sums, seed });
      const pairs = [isSplit ? pairOf(schedule) : { base: schedule, split: schedule }];
      const measurement = startMeasurement(set, make, {
        pairs,
        source: sourceFor(model, undefined, seed).source,
        samples,
      });
      running.push({ name, measurement, isSplit });
      await measurement.open(0);
    }
    for (let round = 0; round < repeats; round++) {
      for (const { name, measurement, isSplit } of round % 2 === 0 ? running : running.toReversed()) {
        steps[name].push((await measurement.step(0, isSplit)).ms);
      }
      bar.step(model.name);
    }
  } finally {
    for (const { measurement } of running) measurement.close();
  }
  return steps;
}

/** By how much the plan is shorter, simulated. */
function predicted({ found: { makespan, equal }, plain }: Compared, over: "best" | "plain"): number {
  return (over === "best" ? equal.makespan : plain.makespan) / makespan;
}

/** The same of measured steps: median of the pairs' ratios, its 95 % interval, and the ratios. */
function gainOf(steps: Readonly<Record<Contender, readonly number[]>>, over: "best" | "plain") {
  const ratios = steps.plan.map((ms, round) => steps[over][round] / ms), interval = medianInterval(ratios);
  return { gain: median(ratios), ...interval && { interval }, ratios: kept(ratios) };
}

function described({ schedule, parts }: Partial<Planned> & { schedule: Schedule }) {
  return { schedule: variantOf(schedule), ...parts && { layers: parts.map(({ length }) => length) } };
}

function tableOf(rows: readonly Compared[]): Table {
  const isMeasured = rows.some(({ steps }) => steps);
  const measuredText = ({ steps }: Compared, over: "best" | "plain") => {
    if (!steps) return "";
    const { gain, interval } = gainOf(steps, over);
    return gain.toFixed(3) + (interval ? ` (${interval.map((each) => each.toFixed(3)).join(" to ")})` : "");
  };
  const cells = (row: Compared, over: "best" | "plain") => [
    predicted(row, over).toFixed(3),
    ...isMeasured ? [measuredText(row, over)] : [],
  ];
  const columns = (over: string) => [`${over}: simulated`, ...isMeasured ? ["measured (95 %)"] : []];
  return {
    columns: [
      "model",
      "chosen",
      "layers",
      "equal work, best",
      ...columns("gain over it"),
      ...columns("over plain 1F1B"),
    ],
    rows: rows.map((row) => [
      row.model.name,
      variantOf(row.found.schedule),
      row.found.parts.map(({ length }) => length).join(" "),
      variantOf(row.found.equal.schedule),
      ...cells(row, "best"),
      ...cells(row, "plain"),
    ]),
  };
}

if (import.meta.main) await main(planned);
