/**
 * `deno task bench scaling`: throughput and gain of 2BP against the number of devices. Bun runs this file as it is, Node
 * runs `bench/main.ts`.
 */
import { freemem } from "node:os";
import process from "node:process";
import { Command, InvalidArgumentError } from "commander";
import { integer, listOf, main, oneOf, real } from "../lib/cli/options.ts";
import { UserError } from "../lib/errors.ts";
import { type DeviceSet, openDevices } from "../lib/gpu/devices.ts";
import { largestFitting } from "../lib/measure/largest.ts";
import { describeMachine } from "../lib/measure/machine.ts";
import { joinRuns } from "../lib/measure/scaling.ts";
import { countSteps, measureThroughput, type SchedulePair, type ThroughputReport } from "../lib/measure/throughput.ts";
import { createModel, modelNames } from "../lib/models/registry.ts";
import { partition } from "../lib/runtime/partition.ts";
import { createPipeline } from "../lib/runtime/pipeline.ts";
import { writePage } from "../lib/report/html.ts";
import { checkOutputs, writeOutput } from "../lib/output.ts";
import { scalingGainTable, scalingNotes, scalingSections, scalingTable, scalingTitle } from "../lib/report/scaling.ts";
import { tableText } from "../lib/report/table.ts";
import { adamw } from "../lib/train/optimizers.ts";
import { sourceFor } from "./data.ts";
import { baseSchedules, paperSchedules, schedulePair, stepBar } from "./throughput.ts";

/** The 2BP paper's case first, then smaller LLaMa-like models. */
const llamas = ["llama-7b", "llama-1.1b", "llama-160m", "llama-small", "llama-tiny"];

interface Options {
  model: string;
  devices: number[];
  virtual?: boolean;
  schedules: string[];
  repeats: number;
  samples: number;
  memory?: number;
  data?: string;
  seed: number;
  json?: string;
  html?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const scaling = new Command("scaling")
  .description("Throughput, bubble and gain of 2BP against the number of devices: measured, predicted, closed form.")
  .option(
    "--model <name>",
    `model to train: ${modelNames.join(", ")}; or largest, the largest of ${llamas.join(", ")} that memory holds`,
    oneOf([...modelNames, "largest"]),
    "llama-deep",
  )
  .option("--devices <a,b>", "numbers of pipeline ranks, each 1 to 64", counts, [2, 4, 8, 16])
  .option("--virtual", "virtual devices throughout (default: only where real ones are too few)")
  .option("--schedules <a,b>", `any of ${baseSchedules.join(", ")}`, listOf(baseSchedules), paperSchedules)
  .option("--repeats <n>", "pairs of steps for each schedule, 1 to 10000", integer(1, 10_000), 3)
  .option("--samples <n>", "samples in a micro-batch, 1 to 65536", integer(1, 65_536), 1)
  .option(
    "--memory <GiB>",
    "what --model largest may take, of a GPU's memory or the machine's (default: what the machine has free)",
    real(1e-3, 1e6),
  )
  .option("--data <file>", "to train on, as for throughput")
  .option("--seed <n>", "seed of parameters and batches", integer(0, 2 ** 31), 1)
  .option("--json <file>", "write the results as JSON (- for standard output)")
  .option("--html <file>", "write a page with a figure and the tables")
  .action(run);

async function run(options: Options): Promise<void> {
  checkOutputs({ "--json": options.json, "--html": options.html });
  const say = options.json === "-" || options.html === "-" ? console.error : console.log;
  const pairsOf = new Map(
    options.devices.map((devices) => [devices, options.schedules.map((name) => schedulePair(name, devices))]),
  );
  const name = options.model === "largest" ? await largest(options, pairsOf, say) : options.model;
  for (const devices of options.devices) partition(createModel(name), devices); // explains too many before any is opened
  const { name: data } = sourceFor(createModel(name), options.data, options.seed);
  const total = [...pairsOf.values()].reduce((sum, pairs) => sum + countSteps({ pairs, repeats: options.repeats }), 0);
  const bar = stepBar(total);
  const reports: ThroughputReport[] = [];
  for (const [devices, pairs] of pairsOf) {
    reports.push(await measure(name, devices, pairs, options, (loss) => bar.increment({ loss: loss.toFixed(3) })));
  }
  bar.stop();
  const report = joinRuns(reports);
  say(`\n${scalingTitle(report)}\n${tableText(scalingTable(report))}\n${tableText(scalingGainTable(report))}`);
  for (const note of scalingNotes(report)) say(note);
  say(`Data: ${data}.`);
  const settings = { data, command: `bench ${process.argv.slice(2).join(" ")}`.trim(), seed: options.seed };
  if (options.json) {
    writeOutput(options.json, JSON.stringify({ ...report, ...settings, machine: describeMachine() }, null, 1) + "\n");
  }
  if (options.html) writePage(options.html, "2BP scaling", scalingSections(report));
}

async function measure(
  name: string,
  devices: number,
  pairs: readonly SchedulePair[],
  { virtual, samples, repeats, data, seed }: Options,
  onStep: (loss: number) => void,
): Promise<ThroughputReport> {
  const set = await openDevices(devices, { virtual });
  try {
    const model = createModel(name);
    const { source } = sourceFor(model, data, seed); // the same batches for any number of devices
    const pipeline = createPipeline(set, model, { optimizer: optimizer(), seed });
    const report = await measureThroughput(set, pipeline, { pairs, source, samples, repeats, onStep });
    pipeline.close();
    return report;
  } finally {
    set.close();
  }
}

const optimizer = () => adamw({ learningRate: 1e-3 });

/** The first of the LLaMa-like models whose predicted bytes there are. */
async function largest(
  { devices, memory, samples, virtual }: Options,
  pairsOf: ReadonlyMap<number, readonly SchedulePair[]>,
  say: (line: string) => void,
): Promise<string> {
  const most = Math.max(...devices);
  const set = await openDevices(most, { virtual });
  const { software } = set.devices[0].gpu.info;
  const limit = largestBuffer(set);
  set.close();
  if (!software && memory === undefined) {
    throw new UserError("WebGPU does not tell how much memory a GPU has: --model largest needs --memory");
  }
  const shared = software || set.mode === "virtual";
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
  });
  const where = shared ? "in all" : "on a device";
  for (const { model, bytes: needed } of fits ? tried.slice(0, -1) : tried) {
    say(`${model} does not fit: it takes ${gib(needed)} ${where} or more, there are ${gib(bytes)}.`);
  }
  if (!fits) throw new UserError(`None of ${llamas.join(", ")} fits into ${gib(bytes)} on ${most} devices`);
  const { model, bytes: needed } = tried[tried.length - 1];
  say(`${model} fits: it takes ${gib(needed)} ${where}, there are ${gib(bytes)}.`);
  return model;
}

function largestBuffer({ devices }: DeviceSet): number {
  const { maxBufferSize, maxStorageBufferBindingSize } = devices[0].gpu.device.limits;
  return Math.min(maxBufferSize, maxStorageBufferBindingSize);
}

const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;

/** Reads numbers of devices separated by commas, ascending. */
function counts(text: string): number[] {
  const read = integer(1, 64);
  const numbers = text.split(",").map((each) => read(each.trim()));
  for (const [index, number] of numbers.entries()) {
    if (numbers.indexOf(number) < index) throw new InvalidArgumentError(`${number} is there twice.`);
  }
  return numbers.sort((a, b) => a - b);
}

if (import.meta.main) await main(scaling);
