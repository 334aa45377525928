/**
 * `deno task bench paper`: the models of the 2BP paper, or the largest of their shape that the device can measure: throughput, memory
 * and scaling of its schedules, without and with 2BP in its order.
 */
import { Command } from "commander";
import { type DeviceSet, openDevices } from "twobp";
import {
  type AblationReport,
  fewestPairs,
  measurePaper,
  type PaperModelReport,
  type PaperPart,
  paperParts,
  type PaperReport,
  type PaperRun,
  paperRunOf,
  paperRuns,
} from "twobp/measure";
import {
  ablationNotes,
  ablationPredictionTable,
  ablationTable,
  ablationTitle,
  paperCitation,
  paperMemoryTable,
  paperNotes,
  paperScalingTable,
  paperSections,
  paperTimesTable,
  paperTitle,
  progress,
  stallTable,
  tableText,
} from "twobp/report";
import { paperSchedules, type PolicyText } from "twobp/schedules";
import * as flag from "../lib/cli/flags.ts";
import { bytes, integer, listOf, main, oneOf, real } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { quietCheck } from "../lib/cli/quiet_check.ts";
import { sourceFor } from "./data.ts";

/** Which of the sizes of a model are looked at. */
const sizes = {
  largest: ({ model, smaller }: PaperRun) => [model, ...smaller],
  full: ({ model }: PaperRun) => [model],
  twin: ({ smaller }: PaperRun) => smaller.slice(-1),
};
const sizeNames = Object.keys(sizes) as (keyof typeof sizes)[];
const modelNames = paperRuns.map(({ model }) => model);
const usualModels = modelNames.filter((name) => name !== "paper-transformer-16"); // one of the sizes of paper-transformer

interface Options {
  models: string[];
  parts: PaperPart[];
  size: keyof typeof sizes;
  devices: number;
  ranks: number[];
  virtual?: boolean;
  schedules: string[];
  policies: PolicyText[];
  minutes: number;
  stall: number;
  steps: number;
  repeats?: number;
  memory?: number;
  seed: number;
  quietCheck?: boolean;
  out?: string;
  json?: string;
  html?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const paper = new Command("paper")
  .description(
    "The models, schedules and order of the 2BP paper (arXiv 2405.18047), in the largest size that the device can measure: " +
      "throughput as the paper measures it and in interleaved pairs, memory, scaling, and where the transformer's gain comes from.",
  )
  .addOption(
    flag.option("--models <a,b>", `models of the paper: ${modelNames.join(", ")}`, listOf(modelNames), usualModels),
  )
  .addOption(flag.option("--parts <a,b>", `what to measure: ${paperParts.join(", ")}`, listOf(paperParts), paperParts))
  .addOption(flag.option(
    "--size <which>",
    "largest: the largest size whose predicted memory and estimated time there are; full: the paper's; twin: the smallest",
    oneOf(sizeNames),
    "largest",
  ))
  .addOption(flag.option("--devices <n>", "pipeline ranks, 2 to 16", integer(2, 16), 4))
  .addOption(flag.option("--ranks <a,b>", "numbers of pipeline ranks for scaling, each 2 to 16", counts, [4, 8, 16]))
  .addOption(flag.virtual())
  .addOption(flag.option(
    "--schedules <a,b>",
    `schedules of the paper: ${paperSchedules.join(", ")}`,
    listOf(paperSchedules),
    paperSchedules,
  ))
  .addOption(flag.policies(["paper", "fill", "lean"], "; the first is timed"))
  .addOption(flag.option(
    "--minutes <n>",
    "time for all of it, 0.01 to 1440; the fewest steps are taken however long they take",
    real(0.01, 1440),
    8,
  ))
  .addOption(flag.option(
    "--stall <share>",
    "what the last rank is held up for after each backward without 2BP on the ablation's highest rung, in shares of one, 0 to 100",
    real(0, 100),
    0.2,
  ))
  .addOption(flag.option("--steps <n>", "steps in an epoch, 1 to 10000", integer(1, 10_000), 5))
  .addOption(flag.option(
    "--repeats <n>",
    `pairs of steps for each schedule, 1 to 10000 (default: what time allows, ${fewestPairs} or more)`,
    integer(1, 10_000),
  ))
  .addOption(flag.option(
    "--memory <size>",
    "what the models may take, of the machine or where devices are real GPUs of each, 80GB for example (default: what a " +
      "machine with software drivers has free; GPUs are tried)",
    bytes,
  ))
  .addOption(flag.seed())
  .addOption(flag.quietCheck())
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { say } = out;
  const { models, minutes, size, virtual, seed, memory, ranks, ...flags } = options;
  const { parts, devices, schedules, policies, stall, steps, repeats } = flags;
  const noise = await quietCheck(options, say);
  const results: PaperModelReport[] = [];
  const start = performance.now(), all = minutes * 60_000;
  for (const [at, name] of models.entries()) {
    const notices = new Set<string>();
    const bar = progress(Math.ceil(all / 1000), "seconds");
    let phase = name;
    const tick = () => bar.to(Math.round((performance.now() - start) / 1000), phase);
    const measured = await measurePaper(name, {
      ...{ devices, parts, ranks, schedules, policies, stall, steps, repeats, seed, bytes: memory },
      sizes: sizes[size](paperRunOf(name)),
      ms: Math.max(1, start + all - performance.now()) / (models.length - at), // what one leaves over the next ones have
      open: (count) => open(count, virtual, notices),
      source: (model) => sourceFor(model, undefined, seed).source,
      onPhase: (text) => {
        phase = text;
        tick();
      },
      onStep: tick,
    }).finally(bar.done);
    for (const notice of notices) say(`${notice}.`);
    results.push(measured);
    show(measured, say);
  }
  say(paperCitation);
  const report: PaperReport = { schema: 1, models: results };
  const sections = () => paperSections(report);
  await out.results("bench", { title: "The 2BP paper, measured", report, ...noise, sections });
}

async function open(count: number, virtual: boolean | undefined, notices: Set<string>): Promise<DeviceSet> {
  const set = await openDevices(count, { virtual });
  if (set.notice) notices.add(set.notice);
  return set;
}

function show(result: PaperModelReport, say: (line: string) => void): void {
  say(`\n${paperTitle(result)}`);
  if (result.throughput) say(tableText(paperTimesTable(result)));
  if (result.peaks ?? result.paperPeaks) say(tableText(paperMemoryTable(result)));
  if (result.scaling) say(tableText(paperScalingTable(result)));
  for (const note of paperNotes(result)) say(note);
  for (const each of result.ablation ?? []) showAblation(each, say);
}

function showAblation(report: AblationReport, say: (line: string) => void): void {
  say(`\nWhere the gain comes from: ${ablationTitle(report)}\n${tableText(ablationTable(report))}`);
  if (report.predictions.length > 0) {
    say(tableText(ablationPredictionTable(report)));
    say(tableText(stallTable(report)));
  }
  for (const note of ablationNotes(report)) say(note);
}

/** Reads numbers of ranks separated by commas. */
function counts(text: string): number[] {
  const read = integer(2, 16);
  return listOf()(text).map(read).sort((a, b) => a - b);
}

if (import.meta.main) await main(paper);
