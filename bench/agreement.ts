/**
 * `deno task bench agreement`: how far predicted step times and gains are from measured ones, on real and on virtual devices, and
 * virtual devices from real ones, measured in turn in one run.
 */
import { Command } from "commander";
import { adamw, createModel, createPipeline, type DeviceSet, measureThroughput, UserError } from "twobp";
import {
  type AgreementReport,
  countSteps,
  type MakePipeline,
  measureAgreement,
  type PredictedRun,
  predictedRun,
  predictionErrors,
  startMeasurement,
  type ThroughputReport,
} from "twobp/measure";
import { type Model, modelNames } from "twobp/models";
import { stageWork } from "twobp/planning";
import {
  agreementIntervals,
  agreementNotes,
  agreementSections,
  agreementTable,
  agreementTitle,
  predictionErrorsTable,
  predictionSummaryTable,
  progress,
  tableText,
} from "twobp/report";
import { partition } from "twobp/runtime";
import { scheduleNames, type SchedulePair } from "twobp/schedules";
import * as flag from "../lib/cli/flags.ts";
import { loadPairs, rowsOfFiles } from "../lib/cli/load_schedule.ts";
import { integer, listOf, main } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { quietCheck } from "../lib/cli/quiet_check.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import { sourceFor } from "./data.ts";
import { keepRun, type KeptKind } from "./kept_agreement.ts";

interface Options {
  model: string[];
  devices?: number;
  virtual?: boolean;
  schedules: string[];
  repeats: number;
  samples: number;
  keep?: boolean;
  quietCheck?: boolean;
  json?: string;
  html?: string;
  out?: string;
}

const tiny = ["llama-tiny", "bert-tiny", "resnet-tiny", "mamba-tiny"];

/** The command line; `bench/main.ts` adds it to the others. */
export const agreement = new Command("agreement")
  .description(
    "How far step times and gains of 2BP are from what is predicted, and virtual devices from as many real ones, in " +
      "interleaved rounds; the real ones under mpirun in several processes.",
  )
  .addOption(flag.option("--model <a,b>", `models, any of ${modelNames.join(", ")}`, listOf(modelNames), tiny))
  .option(
    "--devices <n>",
    "pipeline ranks, 2 to 16, real and virtual ones in turn (default: 2, or the rows of a CSV file; and 4 virtual ones)",
    integer(2, 16),
  )
  .addOption(flag.option("--virtual", "virtual devices alone, without real ones beside them"))
  .addOption(
    flag.option(
      "--schedules <a,b>",
      `any of ${scheduleNames.join(", ")}, and CSV files`,
      listOf(),
    ).default([...scheduleNames], "all of these names"),
  )
  .addOption(flag.repeats("rounds", 9))
  .addOption(flag.samples(1))
  .option(
    "--keep",
    "put the errors into bench/results/agreement-*.json, in place of those of these models, and into error bars",
  )
  .addOption(flag.quietCheck())
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

/**
 * The pairs that the model has enough layers for, where all schedules are asked for; else they must have.
 *
 * @throws {UserError} Explains too many stages.
 */
function fitting(model: Model, pairs: readonly SchedulePair[], isAll: boolean): readonly SchedulePair[] {
  const fit = pairs.filter(({ base: { placement } }) => placement.length <= model.layers.length);
  const needed = isAll && fit.length > 0 ? fit : pairs;
  for (const { base: { placement } } of needed) partition(model, placement);
  return needed;
}

/** So many ranks, and whether real ones are among them. */
interface Part {
  readonly devices: number;
  readonly virtual: boolean;
}

function partsOf({ devices, virtual = false, schedules }: Options): Part[] {
  const [rows] = rowsOfFiles(schedules).values();
  const count = devices ?? rows;
  if (count !== undefined) return [{ devices: count, virtual }];
  return [...virtual ? [] : [{ devices: 2, virtual: false }], { devices: 4, virtual: true }];
}

/** What was predicted and measured on one kind of devices. */
interface Kind extends KeptKind {
  readonly runs: PredictedRun[];
}

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { say } = out;
  const { model: names, schedules, repeats, keep } = options;
  const isAll = schedules.length === scheduleNames.length && schedules.every((name, at) => name === scheduleNames[at]);
  if (keep && !isAll) throw new UserError("--keep keeps what all schedules give: leave --schedules out");
  const models = names.map((name) => createModel(name));
  const parts = partsOf(options).map((part) => ({ ...part, pairs: loadPairs(schedules, part.devices, part.devices) }));
  for (const { pairs } of parts) for (const model of models) fitting(model, pairs, isAll);
  const noise = await quietCheck(options, say);
  const runs: AgreementReport[] = [], alone: ThroughputReport[] = [], kinds: Kind[] = [];
  /** Enters what a run says of predictions. */
  const enter = (report: ThroughputReport, model: Model, pairs: readonly SchedulePair[]) => {
    if (report.rows.some(({ predictedMs }) => predictedMs === undefined)) return; // no timestamps
    const { mode, devices, adapter } = report, { samples } = report;
    const made = predictedRun(report, pairs, (stages) => stageWork(model, { stages, samples }));
    const kind = kinds.find((each) => each.mode === mode && each.devices === devices);
    if (kind) kind.runs.push(made);
    else kinds.push({ mode, devices, adapter, runs: [made] });
    if (keep) keepRun({ mode, devices, adapter }, made, noise);
  };
  let done = 0, isJob = false;
  for (const { devices, virtual, pairs: all } of parts) {
    if (isJob) break; // its other processes have no part in what is virtual
    const measure = async (model: Model, real: DeviceSet | undefined, simulated: DeviceSet | undefined) => {
      const pairs = fitting(model, all, isAll);
      const what = real ? `${devices} real and ${devices} virtual devices` : `${devices} virtual devices`;
      say(`${++done} of ${parts.length * models.length}: ${model.name} on ${what}`);
      if (pairs.length < all.length) {
        const names = all.filter((pair) => !pairs.includes(pair)).map(({ base }) => base.name).join(", ");
        say(`Left out, as it has ${model.layers.length} layers, and they more stages: ${names}.`);
      }
      const bar = progress((real ? 2 : 1) * countSteps({ pairs, repeats }));
      const onStep = (loss: number) => bar.step(`loss ${loss.toFixed(3)}`);
      const report = await measured(model, real, simulated, pairs, options, onStep).finally(bar.done);
      if (!report) return; // the first process says it
      if ("virtual" in report) {
        runs.push(report);
        enter(report.real, model, pairs);
        enter(report.virtual, model, pairs);
        say(
          `\n${agreementTitle(report)}\n${tableText(agreementTable(report))}\n${tableText(agreementIntervals(report))}`,
        );
        for (const note of agreementNotes(report)) say(note);
      } else {
        alone.push(report);
        enter(report, model, pairs);
      }
    };
    const each = async (real: DeviceSet | undefined, simulated: DeviceSet | undefined) => {
      for (const model of models) await measure(model, real, simulated);
    };
    if (virtual) {
      await withDevices(devices, { virtual, say }, (set) => each(undefined, set));
      continue;
    }
    await withDevices(devices, { virtual, inJob: true, say }, async (real) => {
      isJob = "process" in real;
      if (isJob && keep) {
        throw new UserError("--keep keeps errors of devices in one process, and a launcher has started several");
      }
      // Of several processes the first has the virtual devices, and the others wait for their turns.
      if ("process" in real && real.process !== 0) await each(real, undefined);
      else await withDevices(devices, { virtual: true, alone: true, say }, (set) => each(real, set));
    });
  }
  const predictions = kinds.map((kind) => ({ ...kind, ...predictionErrors(kind.runs) }));
  for (const { mode, devices, runs } of predictions) {
    say(`\nPredictions on ${devices} ${mode} devices\n${tableText(predictionErrorsTable(runs))}`);
  }
  if (predictions.length > 0) say(tableText(predictionSummaryTable(predictions)));
  await out.results("bench", {
    title: "Predicted, virtual and real",
    report: { schema: 3, runs, alone, predictions },
    ...noise,
    sections: () => [
      { heading: "What predictions are off", table: predictionSummaryTable(predictions) },
      ...predictions.map(({ mode, devices, runs }) => ({
        heading: `Predictions on ${devices} ${mode} devices`,
        table: predictionErrorsTable(runs),
      })),
      ...runs.flatMap((report) =>
        agreementSections(report).map((each) => ({ ...each, heading: `${report.real.model.name}: ${each.heading}` }))
      ),
    ],
  });
}

/** Virtual devices beside real ones, or alone; nothing where another process has the virtual ones. */
async function measured(
  model: Model,
  real: DeviceSet | undefined,
  simulated: DeviceSet | undefined,
  pairs: readonly SchedulePair[],
  { repeats, samples }: Options,
  onStep: (loss: number) => void,
): Promise<AgreementReport | ThroughputReport | undefined> {
  const how = (set: DeviceSet) => {
    const optimizer = adamw({ learningRate: 1e-3 });
    const make: MakePipeline = (placement) => createPipeline(set, model, { optimizer, placement, seed: 1 });
    return [set, make, { pairs, source: sourceFor(model, undefined, 1).source, samples, onStep }] as const;
  };
  if (real) {
    const beside = simulated && startMeasurement(...how(simulated));
    return await measureAgreement(startMeasurement(...how(real)), beside, repeats);
  }
  const [set, make, options] = how(simulated!);
  return await measureThroughput(set, make, { ...options, repeats });
}

if (import.meta.main) await main(agreement);
