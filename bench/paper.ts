/**
 * `deno task bench paper`: the models of the 2BP paper, or the largest of their shape that the device can measure: throughput, memory
 * and scaling of its schedules, without and with 2BP in its order.
 */
import { Command } from "commander";
import * as flag from "../lib/cli/flags.ts";
import { openFolder } from "../lib/cli/folder.ts";
import { bytes, integer, listOf, main, oneOf, real } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { type DeviceSet, openDevices } from "../lib/gpu/devices.ts";
import { measurePaper, type PaperPart, predictPaper } from "../lib/measure/paper.ts";
import type { PaperModelResult, PaperReport } from "../lib/measure/paper_report.ts";
import { type PaperRun, paperRunOf, paperRuns } from "../lib/measure/paper_runs.ts";
import { scalePaper } from "../lib/measure/paper_scaling.ts";
import type { Model } from "../lib/models/model.ts";
import {
  paperCitation,
  paperMemoryTable,
  paperNotes,
  paperScalingTable,
  paperSections,
  paperTimesTable,
  paperTitle,
} from "../lib/report/paper.ts";
import { progress } from "../lib/report/progress.ts";
import { tableText } from "../lib/report/table.ts";
import type { PolicyText } from "../lib/schedules/schedule.ts";
import { paperSchedules } from "../lib/schedules/transforms/pair.ts";
import { sourceFor } from "./data.ts";

/** What is measured, and how much of a model's time it gets. */
const shares = { throughput: 2, memory: 0, scaling: 1 };
const partNames = Object.keys(shares) as (keyof typeof shares)[];

/** Which of the sizes of a model are looked at. */
const sizes = {
  largest: ({ model, smaller }: PaperRun) => [model, ...smaller],
  full: ({ model }: PaperRun) => [model],
  twin: ({ smaller }: PaperRun) => smaller.slice(-1),
};
const sizeNames = Object.keys(sizes) as (keyof typeof sizes)[];
const modelNames = paperRuns.map(({ model }) => model);

interface Options {
  models: string[];
  parts: (keyof typeof shares)[];
  size: keyof typeof sizes;
  devices: number;
  ranks: number[];
  virtual?: boolean;
  schedules: string[];
  policies: PolicyText[];
  minutes: number;
  steps: number;
  repeats?: number;
  memory?: number;
  seed: number;
  out?: string;
  json?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const paper = new Command("paper")
  .description(
    "The models, schedules and order of the 2BP paper (arXiv 2405.18047), in the largest size that the device can measure: " +
      "throughput as the paper measures it and in interleaved pairs, memory, scaling.",
  )
  .option("--models <a,b>", `models of the paper: ${modelNames.join(", ")}`, listOf(modelNames), [
    "paper-transformer",
    "paper-bert-large",
    "paper-mamba-1.4b",
    "paper-resnet-152",
  ])
  .option("--parts <a,b>", `what to measure: ${partNames.join(", ")}`, listOf(partNames), partNames)
  .option(
    "--size <which>",
    "largest: the largest size whose predicted memory and estimated time there are; full: the paper's; twin: the smallest",
    oneOf(sizeNames),
    "largest",
  )
  .option("--devices <n>", "pipeline ranks, 2 to 16", integer(2, 16), 4)
  .option("--ranks <a,b>", "numbers of pipeline ranks for scaling, each 2 to 64", counts, [4, 8, 16])
  .addOption(flag.virtual())
  .option(
    "--schedules <a,b>",
    `schedules of the paper: ${paperSchedules.join(", ")}`,
    listOf(paperSchedules),
    paperSchedules,
  )
  .addOption(flag.policies(["paper", "fill", "lean"]))
  .option("--minutes <n>", "time for all of it; the fewest steps are taken however long they take", real(0.01, 1440), 8)
  .option("--steps <n>", "steps in an epoch, 1 to 10000", integer(1, 10_000), 10)
  .option(
    "--repeats <n>",
    "pairs of steps for each schedule, 1 to 10000 (default: what time allows)",
    integer(1, 10_000),
  )
  .option(
    "--memory <size>",
    "of the GPU, 80GB for example (default: it is tried; of software drivers what the machine has free)",
    bytes,
  )
  .addOption(flag.seed())
  .option("--out <folder>", "write all of it there: report.json, paper.html, paper.md, and the figures as PNG")
  .addOption(flag.json())
  .action(run);

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const folder = options.out === undefined ? undefined : openFolder("--out", options.out);
  const { say } = out;
  const { parts, devices, schedules, policies } = options;
  const results: PaperModelResult[] = [];
  const report = (): PaperReport => ({ schema: 1, models: results });
  const clock = timeShares(options);
  const notices = new Set<string>();
  for (const name of options.models) {
    const bar = progress(clock.seconds, "seconds");
    let phase = name;
    const shown = {
      onPhase: (text: string) => bar.to(clock.spent(), phase = text),
      onStep: () => bar.to(clock.spent(), phase),
    };
    const common = {
      ...{ schedules, policies, seed: options.seed, bytes: options.memory, repeats: options.repeats },
      ...shown,
      open: (count: number) => open(count, options.virtual, notices),
      source: (model: Model) => sourceFor(model, undefined, options.seed).source,
    };
    try {
      const measured = await measurePaper({
        ...{ ...common, devices, steps: options.steps, ms: clock.next(shares.throughput) },
        parts: parts.filter((part): part is PaperPart => part !== "scaling"),
        sizes: sizes[options.size](paperRunOf(name)),
      });
      const paperPeaks = parts.includes("memory") ? { paperPeaks: await predictPaper(name, options) } : {};
      const scaling = parts.includes("scaling")
        ? {
          scaling: await scalePaper({
            ...{ ...common, ms: clock.next(shares.scaling), counts: options.ranks, known: measured },
            model: String(measured.model.name),
          }),
        }
        : {};
      results.push({ ...measured, paper: name, ...paperPeaks, ...scaling });
    } finally {
      bar.done();
    }
    for (const notice of notices) say(`${notice}.`);
    notices.clear();
    show(results[results.length - 1], say);
    folder?.write("report.json", out.json("bench", report())); // what there is so far, should the time end
  }
  say(paperCitation);
  out.report("bench", report());
  await folder?.sections("paper", "The 2BP paper, measured", paperSections(report()));
}

async function open(count: number, virtual: boolean | undefined, notices: Set<string>): Promise<DeviceSet> {
  const set = await openDevices(count, { virtual });
  if (set.notice) notices.add(set.notice);
  return set;
}

function show(result: PaperModelResult, say: (line: string) => void): void {
  say(`\n${paperTitle(result)}`);
  if (result.throughput) say(tableText(paperTimesTable(result)));
  if (result.peaks ?? result.paperPeaks) say(tableText(paperMemoryTable(result)));
  if (result.scaling) say(tableText(paperScalingTable(result)));
  for (const note of paperNotes(result)) say(note);
}

/** Shares out the time there is: what one part leaves over the next ones have. */
function timeShares({ minutes, models, parts }: Options) {
  const start = performance.now(), all = minutes * 60_000;
  let left = models.length * (shares.throughput + (parts.includes("scaling") ? shares.scaling : 0));
  return {
    seconds: Math.ceil(all / 1000),
    spent: () => Math.min(Math.ceil(all / 1000), Math.round((performance.now() - start) / 1000)),
    /** Milliseconds for a part that has so many of the shares that are left. */
    next(share: number): number {
      const ms = Math.max(1, start + all - performance.now()) * share / left;
      left -= share;
      return ms;
    },
  };
}

/** Reads numbers of ranks separated by commas. */
function counts(text: string): number[] {
  const read = integer(2, 64);
  return listOf()(text).map(read).sort((a, b) => a - b);
}

if (import.meta.main) await main(paper);
