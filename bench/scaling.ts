/**
 * `deno task bench scaling`: throughput and gain of 2BP against the number of ranks. Bun runs this file as it is, Node
 * runs `bench/main.ts`.
 */
import { freemem } from "node:os";
import { Command, InvalidArgumentError } from "commander";
import { adamw, createModel, createPipeline, measureThroughput, UserError } from "twobp";
import { countSteps, joinRuns, largestFitting, type MakePipeline, type ThroughputReport } from "twobp/measure";
import {
  progress,
  scalingGainTable,
  scalingNotes,
  scalingSections,
  scalingTable,
  scalingTitle,
  tableText,
} from "twobp/report";
import { largestBuffer, partition } from "twobp/runtime";
import type { SchedulePair } from "twobp/schedules";
import * as flag from "../lib/cli/flags.ts";
import { loadPairs, rowsOfFiles } from "../lib/cli/load_schedule.ts";
import { integer, main, real } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { quietCheck } from "../lib/cli/quiet_check.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import { sourceFor } from "./data.ts";

/** The 2BP paper's case first, then smaller LLaMa-like models. */
const llamas = ["llama-7b", "llama-1.1b", "llama-160m", "llama-small", "llama-tiny"];

interface Options {
  model: string;
  devices?: number[];
  virtual?: boolean;
  schedules: string[];
  repeats: number;
  samples: number;
  memory?: number;
  data?: string;
  seed: number;
  quietCheck?: boolean;
  json?: string;
  html?: string;
  out?: string;
}

/** Numbers of ranks, where nobody says which. */
const usualCounts = [2, 4, 8, 16];

/** The command line; `bench/main.ts` adds it to the others. */
export const scaling = new Command("scaling")
  .description("Throughput, bubble and gain of 2BP against the number of ranks: measured, predicted, closed form.")
  .addOption(
    flag.model("llama-deep", ["largest"], `; or largest, the largest of ${llamas.join(", ")} that memory holds`),
  )
  .option(
    "--devices <a,b>",
    `numbers of pipeline ranks, each 1 to 64 (default: ${usualCounts.join(",")}, or the rows of the CSV files)`,
    counts,
  )
  .addOption(flag.virtual())
  .addOption(flag.schedules())
  .addOption(flag.repeats("pairs of steps for each schedule", 3))
  .addOption(flag.samples(1))
  .option(
    "--memory <GiB>",
    "what --model largest may take, of a GPU's memory or the machine's (default: what the machine has free)",
    real(1e-3, 1e6),
  )
  .addOption(flag.data())
  .addOption(flag.seed())
  .addOption(flag.quietCheck())
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { say } = out;
  const { repeats, seed } = options;
  const pairsOf = pairsByRanks(options.schedules, options.devices);
  const name = options.model === "largest" ? await largest(options, pairsOf, say) : options.model;
  for (const pairs of pairsOf.values()) { // explains too many stages before any device is opened
    for (const { base } of pairs) partition(createModel(name), base.placement);
  }
  const { name: data } = sourceFor(createModel(name), options.data, seed);
  const noise = await quietCheck(options, say);
  const bar = progress([...pairsOf.values()].reduce((sum, pairs) => sum + countSteps({ pairs, repeats }), 0));
  const reports: ThroughputReport[] = [];
  try {
    for (const [devices, pairs] of pairsOf) {
      const onStep = (loss: number) => bar.step(`${devices} ranks, loss ${loss.toFixed(3)}`);
      reports.push(await measure(name, devices, pairs, options, onStep));
    }
  } finally {
    bar.done();
  }
  const report = joinRuns(reports);
  say(`\n${scalingTitle(report)}\n${tableText(scalingTable(report))}\n${tableText(scalingGainTable(report))}`);
  for (const note of scalingNotes(report)) say(note);
  say(`Data: ${data}.`);
  await out.results("bench", {
    title: "2BP scaling",
    report: { ...report, data, seed },
    ...noise,
    sections: () => scalingSections(report),
  });
}

/** The pairs for each number of ranks; a CSV file is for as many as it has rows. */
function pairsByRanks(names: readonly string[], devices?: readonly number[]): Map<number, SchedulePair[]> {
  const files = rowsOfFiles(names);
  const numbers = devices ?? (files.size > 0 ? [...new Set(files.values())].sort((a, b) => a - b) : usualCounts);
  for (const [name, rows] of files) {
    if (!numbers.includes(rows)) throw new UserError(`${name} is for ${rows} ranks, which --devices does not name`);
  }
  return new Map(numbers.map((count) => {
    const own = names.filter((name) => (files.get(name) ?? count) === count);
    if (own.length === 0) throw new UserError(`--devices names ${count} ranks, for which no schedule is given`);
    return [count, loadPairs(own, count, count)];
  }));
}

async function measure(
  name: string,
  devices: number,
  pairs: readonly SchedulePair[],
  { virtual, samples, repeats, data, seed }: Options,
  onStep: (loss: number) => void,
): Promise<ThroughputReport> {
  return await withDevices(devices, { virtual, say: () => {} }, async (set) => { // each row says whether it is virtual
    const model = createModel(name);
    const { source } = sourceFor(model, data, seed); // the same batches for any number of ranks
    const make: MakePipeline = (placement) => createPipeline(set, model, { optimizer: optimizer(), placement, seed });
    return await measureThroughput(set, make, { pairs, source, samples, repeats, onStep });
  });
}

const optimizer = () => adamw({ learningRate: 1e-3 });

/** The first of the LLaMa-like models whose predicted bytes there are. */
async function largest(
  { memory, samples, virtual }: Options,
  pairsOf: ReadonlyMap<number, readonly SchedulePair[]>,
  say: (line: string) => void,
): Promise<string> {
  const most = Math.max(...pairsOf.keys());
  const { software, kind, subgroupSize, limit, shared } = await withDevices(most, { virtual, say: () => {} }, (set) => {
    const { software, kind, subgroupSize } = set.devices[0].gpu.info;
    const shared = software || set.mode === "virtual";
    return Promise.resolve({ software, kind, subgroupSize, limit: largestBuffer(set.devices[0].gpu.device), shared });
  });
  if (!software && memory === undefined) {
    throw new UserError("WebGPU does not tell how much memory a GPU has: --model largest needs --memory");
  }
  const bytes = memory === undefined ? freemem() : memory * 2 ** 30;
  const schedules = pairsOf.get(most)!.flatMap(({ base, split }) => [split, base]);
  // The largest tensor is the token table; one that a kernel cannot bind is no use, whatever memory there is.
  const bindable = llamas.filter((name) => {
    const { vocabulary, width } = createModel(name).configuration;
    const table = 4 * vocabulary * width;
    if (table > limit) {
      say(`${name}: its token table of ${gib(table)} is more than ${gib(limit)}, what this device binds.`);
    }
    return table <= limit;
  });
  const { fits, tried } = await largestFitting({
    models: bindable,
    schedules,
    samples,
    optimizer: optimizer(),
    bytes,
    shared,
    software,
    kind,
    subgroupSize,
  });
  const where = shared ? "in all" : "on a device";
  for (const { model, bytes: needed } of fits ? tried.slice(0, -1) : tried) {
    say(`${model} does not fit: it takes ${gib(needed)} ${where} or more, there are ${gib(bytes)}.`);
  }
  if (!fits) throw new UserError(`None of ${llamas.join(", ")} fits into ${gib(bytes)} on ${most} ranks`);
  const { model, bytes: needed } = tried[tried.length - 1];
  say(`${model} fits: it takes ${gib(needed)} ${where}, there are ${gib(bytes)}.`);
  return model;
}

const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;

/** Reads numbers of ranks separated by commas, ascending. */
function counts(text: string): number[] {
  const read = integer(1, 64);
  const numbers = text.split(",").map((each) => read(each.trim()));
  for (const [index, number] of numbers.entries()) {
    if (numbers.indexOf(number) < index) throw new InvalidArgumentError(`${number} is there twice.`);
  }
  return numbers.sort((a, b) => a - b);
}

if (import.meta.main) await main(scaling);
