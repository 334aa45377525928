/**
 * `deno task bench throughput`: step times of the four schedules of the 2BP paper, without and with 2BP, on several
 * devices. Bun runs this file as it is, Node runs `bench/main.ts`.
 */
import process from "node:process";
import { Command } from "commander";
import { integer, listOf, main, oneOf, reading, real } from "../lib/cli/options.ts";
import { UserError } from "../lib/errors.ts";
import { type DeviceSet, openDevices } from "../lib/gpu/devices.ts";
import { calibrate, type Calibration, problemsOf } from "../lib/measure/calibrate.ts";
import { stageMemories } from "../lib/measure/stage_memory.ts";
import { describeMachine } from "../lib/measure/machine.ts";
import { countSteps, measureThroughput, type SchedulePair } from "../lib/measure/throughput.ts";
import { createModel, modelNames } from "../lib/models/registry.ts";
import { partition } from "../lib/runtime/partition.ts";
import type { Choices } from "../lib/ops/choice.ts";
import { createPipeline, type Pipeline, type Precision, precisions } from "../lib/runtime/pipeline.ts";
import { parseRecompute, type RecomputeText } from "../lib/runtime/recompute.ts";
import { writePage } from "../lib/report/html.ts";
import { checkOutputs, writeOutput } from "../lib/output.ts";
import { partitionTable } from "../lib/report/partition.ts";
import { progressBar, showLine } from "../lib/report/progress.ts";
import { tableText } from "../lib/report/table.ts";
import {
  gainTable,
  throughputNotes,
  throughputSections,
  throughputTable,
  throughputTitle,
} from "../lib/report/throughput.ts";
import { generate } from "../lib/schedules/generators/generate.ts";
import { simulate } from "../lib/schedules/price/simulate.ts";
import { parsePolicy, type Policy } from "../lib/schedules/transforms/policy.ts";
import { twoStage } from "../lib/schedules/transforms/two_stage.ts";
import type { BatchSource } from "../lib/train/data.ts";
import { sizeOf } from "../lib/tensor.ts";
import { adamw } from "../lib/train/optimizers.ts";
import { sourceFor } from "./data.ts";
import { sizesOf } from "../lib/schedules/check/sizes.ts";

/** The four schedules of the 2BP paper. */
export const paperSchedules = ["naive", "gpipe", "1f1b-1", "1f1b-2"];
/** Schedules of F and B with one stage a rank, which 2BP can be made of. */
export const baseSchedules = [...paperSchedules, "1f1b"];
/** What the pairs may take by default; set-up and compilation come on top, two minutes are allowed in all. */
const budgetMs = 60_000;

interface Options {
  model: string;
  devices: number;
  virtual?: boolean;
  schedules: string[];
  policy?: Policy;
  repeats: number;
  samples?: number;
  recompute: RecomputeText;
  precision: Precision;
  data?: string;
  seed: number;
  latency?: number;
  bandwidth?: number;
  calibrate?: boolean;
  json?: string;
  html?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const throughput = new Command("throughput")
  .description("Step times of pipeline schedules without and with 2BP: gain measured, predicted, and taken apart.")
  .option("--model <name>", `model to train: ${modelNames.join(", ")}`, oneOf(modelNames), "llama-tiny")
  .option("--devices <n>", "pipeline ranks, 1 to 16", integer(1, 16), 2)
  .option("--virtual", "run all ranks on one device and compose the step times (default where devices are too few)")
  .option("--schedules <a,b>", `any of ${paperSchedules.join(", ")}`, listOf(paperSchedules), paperSchedules)
  .option(
    "--policy <p>",
    "of 2BP: fill, lean, end, mid, every:k or cap:BYTES (default: end in one W for gpipe, fill for the others)",
    reading(parsePolicy),
  )
  .option("--repeats <n>", "pairs of steps for each schedule, 1 to 10000", integer(1, 10_000), 21)
  .option(
    "--samples <n>",
    "samples in a micro-batch, 1 to 65536 (default: what fits about a minute)",
    integer(1, 65_536),
  )
  .option(
    "--recompute <what>",
    "what to compute again: none, activations, derivatives, both, perhaps with :N for the first N layers of a stage",
    reading(parseRecompute),
    "none",
  )
  .option("--precision <p>", `what tensors hold: ${precisions.join(" or ")}`, oneOf(precisions), "f32")
  .option(
    "--data <file>",
    "to train on: a text, or for ResNet a folder of class folders with PNG or JPEG images (default: this project's sources, or synthetic images)",
  )
  .option("--seed <n>", "seed of parameters and batches", integer(0, 2 ** 31), 1)
  .option(
    "--latency <us>",
    "of a link between virtual devices, microseconds (default: links as measured)",
    real(0, 1e6),
  )
  .option("--bandwidth <GB/s>", "of a link between virtual devices (default: links as measured)", real(1e-6, 1e6))
  .option("--calibrate", "choose kernels by measuring them on this device first; kept for the next run")
  .option("--json <file>", "write the results as JSON (- for standard output)")
  .option("--html <file>", "write a page with a figure and the tables")
  .action(run);

async function run(options: Options): Promise<void> {
  checkOutputs({ "--json": options.json, "--html": options.html });
  const say = options.json === "-" || options.html === "-" ? console.error : console.log;
  const model = createModel(options.model);
  const { name: data, source } = sourceFor(model, options.data, options.seed);
  const parts = partition(model, options.devices);
  const usual = options.schedules.map((name) => schedulePair(name, options.devices));
  const set = await openDevices(options.devices, { virtual: options.virtual });
  try {
    const given = options.latency !== undefined || options.bandwidth !== undefined;
    if (given && set.mode === "real") {
      throw new UserError(
        "--latency and --bandwidth are of links between virtual devices, and these are real: add --virtual",
      );
    }
    if (set.notice) say(`${set.notice}.`);
    const pipeline = createPipeline(set, model, {
      optimizer: adamw({ learningRate: 2e-3 }),
      parts,
      seed: options.seed,
      recompute: options.recompute,
      precision: options.precision,
    });
    say(tableText(partitionTable(model, pipeline.parts)));
    const { repeats } = options;
    const samples = options.samples ?? await chooseSamples(pipeline, source, usual, repeats, set.mode === "real");
    const calibration = options.calibrate ? await calibrateFor(set, options, samples, usual) : undefined;
    if (calibration) say(calibrationNote(calibration));
    const pairs = options.policy
      ? await withPolicy(usual, options.policy, samples, set, options, calibration?.choices)
      : usual;
    const elementBytes = options.precision === "mixed" ? 2 : 4;
    const message = elementBytes *
      sizeOf(parts[0].reduce((shape, layer) => layer.outputShape(shape), model.inputShape(samples)));
    const transferMs = (options.latency ?? 0) / 1e3 + message / ((options.bandwidth ?? Infinity) * 1e6);
    const bar = stepBar(countSteps({ pairs, repeats }));
    const report = await measureThroughput(set, pipeline, {
      pairs,
      source,
      samples,
      repeats,
      ...(given ? { transfer: (from, to) => from === to ? 0 : transferMs } : {}),
      onStep: (loss) => bar.increment({ loss: loss.toFixed(3) }),
    });
    bar.stop();
    pipeline.close();
    say(`\n${throughputTitle(report)}\n${tableText(throughputTable(report))}\n${tableText(gainTable(report))}`);
    for (const note of throughputNotes(report)) say(note);
    say(`Data: ${data}.`);
    const settings = { data, command: `bench ${process.argv.slice(2).join(" ")}`.trim(), seed: options.seed };
    if (options.json) {
      writeOutput(options.json, JSON.stringify({ ...report, ...settings, machine: describeMachine() }, null, 1) + "\n");
    }
    if (options.html) writePage(options.html, "2BP throughput", throughputSections(report));
    if (report.loss.last >= report.loss.first) {
      say("The loss did not fall: the run is too short, or something is wrong.");
    }
  } finally {
    set.close();
  }
}

/** The same schedules with another policy for the weight gradients. */
async function withPolicy(
  pairs: readonly SchedulePair[],
  policy: Policy,
  samples: number,
  set: DeviceSet,
  { model, devices, recompute, precision }: Options,
  choices?: Choices,
): Promise<SchedulePair[]> {
  const { software, subgroupSize } = set.devices[0].gpu.info;
  const shape = { samples, optimizer: adamw(), recompute, precision, software, subgroupSize, choices };
  const stages = await stageMemories(createModel(model), { ...shape, stages: devices });
  return pairs.map((pair) => ({ ...pair, split: twoStage(pair.base, { policy, memory: (stage) => stages[stage] }) }));
}

/** Measures the kernels that the model's steps need, with the micro-batches of a W apart and together. */
async function calibrateFor(
  set: DeviceSet,
  { model, precision }: Options,
  samples: number,
  pairs: readonly SchedulePair[],
): Promise<Calibration> {
  const [{ gpu }] = set.devices;
  const widest = Math.max(...pairs.map(({ split }) => sizesOf(split).width));
  const problems = [];
  for (const width of new Set([1, widest])) {
    problems.push(...await problemsOf(createModel(model), samples, gpu, { width, precision }));
  }
  const tell = (done: number, total: number) => showLine(done === total ? "" : `${done} of ${total} kernel choices`);
  return await calibrate(set.devices, problems, { onProgress: tell });
}

function calibrationNote({ results, known, ms }: Calibration): string {
  const changed = results.filter(({ usual, best }) => usual !== best).length;
  return `Kernels: ${results.length} choices measured in ${
    (ms / 1e3).toFixed(1)
  } s, ${changed} differ from the rule's; ` +
    `${known} known from before.`;
}

/** GPipe runs its W at the end, all micro-batches concatenated, as the paper has it; the others fill idle slots. */
export function schedulePair(name: string, devices: number): SchedulePair {
  const base = generate(name, { devices });
  return {
    base,
    split: name === "gpipe" ? twoStage(base, { policy: "end", width: sizesOf(base).microbatches }) : twoStage(base),
  };
}

/**
 * The largest power of two for which all pairs fit the time that a run may take: large micro-batches drown the host's
 * share of a step, small machines finish all the same.
 */
async function chooseSamples(
  pipeline: Pipeline,
  source: BatchSource,
  pairs: readonly SchedulePair[],
  repeats: number,
  parallel: boolean,
): Promise<number> {
  const probe = pairs[0].base;
  const timed = async (samples: number) =>
    (await pipeline.step(probe, await source.next(samples * sizesOf(probe).microbatches))).wallMs;
  const unitsOf = (schedule: SchedulePair["base"]) => {
    const { makespan, busy } = simulate(schedule);
    return parallel ? makespan : busy.reduce((sum, time) => sum + time, 0);
  };
  const units = pairs.reduce((sum, { base, split }) => sum + unitsOf(base) + unitsOf(split), 0) * (repeats + 1);
  await timed(1); // compiles
  let samples = 1;
  for (; samples < 4096; samples *= 2) {
    const perUnit = Math.min(await timed(2 * samples), await timed(2 * samples)) / unitsOf(probe);
    if (perUnit * units > budgetMs) break;
  }
  return samples;
}

/** On standard error: bar, steps and loss. */
export function stepBar(total: number): ReturnType<typeof progressBar> {
  const bar = progressBar("{bar} {value}/{total} steps, loss {loss}, {eta_formatted} left", { withoutTerminal: true });
  bar.start(total, 0, { loss: "-" });
  return bar;
}

if (import.meta.main) await main(throughput);
