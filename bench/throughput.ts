/**
 * `deno task bench throughput`: step times of schedules without and with 2BP, of the four of its paper by default, on several
 * devices. Bun runs this file as it is, Node runs `bench/main.ts`.
 */
import { Command } from "commander";
import {
  adamw,
  createModel,
  createPipeline,
  type DeviceSet,
  measureThroughput,
  type Schedule,
  simulate,
  UserError,
} from "twobp";
import {
  calibrate,
  type Calibration,
  countSteps,
  type Exchange,
  type MakePipeline,
  measureStepCosts,
  problemsOf,
  type Transfer,
} from "twobp/measure";
import { type Choices, sizeOf } from "twobp/ops";
import {
  gainTable,
  partitionTable,
  progress,
  type ProgressLine,
  tableText,
  throughputNotes,
  throughputSections,
  throughputTable,
  throughputTitle,
} from "twobp/report";
import { partition, type Precision, type RecomputeText, sumsOf, type SumsPolicy, withRecompute } from "twobp/runtime";
import { pairOf, type PolicyText, type SchedulePair, sizesOf, zoo } from "twobp/schedules";
import type { BatchSource } from "twobp/train";
import { withAhead } from "../lib/cli/ahead.ts";
import * as flag from "../lib/cli/flags.ts";
import { loadPairs } from "../lib/cli/load_schedule.ts";
import { main, real } from "../lib/cli/options.ts";
import { devicesOf, expectReplicas, ranksOf } from "../lib/cli/replica_flags.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { quietCheck } from "../lib/cli/quiet_check.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import { sourceFor } from "./data.ts";
import { memoryModels } from "./stage_memory.ts";

/** What the pairs may take by default; set-up and compilation come on top, two minutes are allowed in all. */
const budgetMs = 60_000;

interface Options {
  model: string;
  devices?: number;
  replicas?: number;
  shardOptimizer?: boolean;
  virtual?: boolean;
  schedules: string[];
  policy?: PolicyText;
  repeats: number;
  within?: number;
  samples?: number;
  recompute: RecomputeText;
  recomputeAhead?: boolean;
  sums: SumsPolicy;
  precision: Precision;
  data?: string;
  seed: number;
  latency?: number;
  bandwidth?: number;
  calibrate?: boolean;
  quietCheck?: boolean;
  json?: string;
  html?: string;
  out?: string;
}

const joined = zoo.filter(({ twoStage }) => twoStage?.joined).map(({ name }) => name).join(" and ");

/** The command line; `bench/main.ts` adds it to the others. */
export const throughput = new Command("throughput")
  .description("Step times of pipeline schedules without and with 2BP: gain measured, predicted, and taken apart.")
  .addOption(flag.model("llama-tiny"))
  .addOption(flag.devicesOfReplicas(64, 2))
  .addOption(flag.replicas(64))
  .addOption(flag.shardOptimizer())
  .addOption(flag.virtual())
  .addOption(flag.schedules())
  .addOption(
    flag.policy(
      `end in one W for ${joined}, fill for others; what is split by itself stays so; select measures costs first`,
    ),
  )
  .addOption(flag.repeats("pairs of steps for each schedule", 21))
  .option(
    "--within <share>",
    "end before --repeats, once the 95 % interval of every gain reaches no further to either side: 0.02 is 2 %",
    real(0.001, 0.5),
  )
  .addOption(flag.samples("what fits about a minute"))
  .addOption(flag.recompute())
  .addOption(flag.recomputeAhead())
  .addOption(flag.sums())
  .addOption(flag.precision())
  .addOption(flag.data())
  .addOption(flag.seed())
  .option("--latency <us>", "of a link between virtual devices, microseconds (default: as measured)", real(0, 1e6))
  .option("--bandwidth <GB/s>", "of a link between virtual devices (default: as measured)", real(1e-6, 1e6))
  .option("--calibrate", "choose kernels by measuring them on this device first; kept for the next run")
  .addOption(flag.quietCheck())
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { say } = out;
  const { repeats, within, seed, recompute, sums, precision, latency, bandwidth, replicas = 1, shardOptimizer } =
    options;
  expectReplicas(undefined, options);
  const model = createModel(options.model);
  const ahead = (schedule: Schedule) => withAhead(schedule, partition(model, schedule.placement.length), recompute);
  const usual = loadPairs(
    options.schedules,
    ranksOf(options.devices, options),
    2,
    options.recomputeAhead ? ahead : undefined,
    replicas,
  );
  const { name: data, source } = sourceFor(model, options.data, seed);
  usual.forEach(({ base: { placement } }) => sumsOf(sums, placement.length)); // refuses makers for other stages
  const cuts = new Map(usual.map(({ base: { placement } }) => [placement.length, partition(model, placement.length)]));
  await withDevices(
    devicesOf(usual[0].base.actions.length, options),
    { virtual: options.virtual, inJob: true, replicas, say },
    async (set) => {
      const given = latency !== undefined || bandwidth !== undefined;
      if (given && set.mode === "real") {
        throw new UserError(
          "--latency and --bandwidth are of links between virtual devices, and these are real: add --virtual",
        );
      }
      const noise = await quietCheck(options, say);
      const optimizer = adamw({ learningRate: 2e-3 });
      const make: MakePipeline = (placement) =>
        createPipeline(set, model, {
          optimizer,
          placement,
          replicas,
          shardOptimizer,
          seed,
          recompute,
          sums,
          precision,
        });
      for (const parts of cuts.values()) say(tableText(partitionTable(model, withRecompute(parts, recompute))));
      const samples = options.samples ?? await chooseSamples(make, source, usual, repeats, set.mode === "real");
      const calibration = options.calibrate ? await calibrateFor(set, options, samples, usual) : undefined;
      if (calibration) say(calibrationNote(calibration));
      const { policy } = options;
      const [[first]] = cuts.values();
      const values = sizeOf(first.reduce((shape, layer) => layer.outputShape(shape), model.inputShape(samples)));
      const bytes = (precision === "mixed" ? 2 : 4) * values;
      const exchange: Exchange | undefined = given
        ? (bytes) => (latency ?? 0) / 1e3 + bytes / ((bandwidth ?? Infinity) * 1e6)
        : undefined;
      const transferMs = exchange?.(bytes) ?? 0;
      const transfer: Transfer | undefined = given ? (from, to) => from === to ? 0 : transferMs : undefined;
      const pairs = policy === "select"
        ? await selected(usual, set, make, say, { source, samples, transfer, exchange })
        : policy
        ? await withPolicy(usual, policy, samples, set, options, calibration?.choices)
        : usual;
      const bar = progress(countSteps({ pairs, repeats }));
      const report = await measureThroughput(set, make, {
        pairs,
        source,
        samples,
        repeats,
        replicas,
        ...(within === undefined ? {} : { within }),
        ...(transfer ? { transfer, exchange } : {}),
        onStep: (loss) => bar.step(`loss ${loss.toFixed(3)}`),
      }).finally(bar.done);
      say(`\n${throughputTitle(report)}\n${tableText(throughputTable(report))}\n${tableText(gainTable(report))}`);
      for (const note of throughputNotes(report)) say(note);
      say(`Data: ${data}.`);
      await out.results("bench", {
        title: "2BP throughput",
        report: { ...report, data, seed },
        ...noise,
        sections: () => throughputSections(report),
      });
      if (report.loss.last >= report.loss.first) {
        say("The loss did not fall: the run is too short, or something is wrong.");
      }
    },
  );
}

/** The same schedules with another policy for the weight gradients, where they are not split by themselves. */
async function withPolicy(
  pairs: readonly SchedulePair[],
  policy: PolicyText,
  samples: number,
  set: DeviceSet,
  { model, recompute, sums, precision, replicas, shardOptimizer }: Options,
  choices?: Choices,
): Promise<SchedulePair[]> {
  const { software, subgroupSize } = set.devices[0].gpu.info;
  const kind = { recompute, sums, precision, replicas, shardOptimizer, apart: "process" in set };
  const shape = { samples, optimizer: adamw(), ...kind, software, subgroupSize, choices };
  const memoryOf = memoryModels(model, shape);
  return await Promise.all(pairs.map(async ({ base, split }) => {
    const memory = await memoryOf(base);
    return pairOf(split.policy ? base : split, { policy, memory });
  }));
}

/** The same schedules split where it pays on these devices: what their actions take is measured first. */
async function selected(
  pairs: readonly SchedulePair[],
  set: DeviceSet,
  make: MakePipeline,
  say: (text: string) => void,
  how: { source: BatchSource; samples: number; transfer?: Transfer; exchange?: Exchange },
): Promise<SchedulePair[]> {
  const result: SchedulePair[] = [];
  for (const { base, split } of pairs) {
    if (!split.policy) {
      result.push({ base, split }); // split by itself
      continue;
    }
    const pipeline = make(base.placement);
    try {
      const costs = await measureStepCosts(set, pipeline, base, how);
      const pair = pairOf(base, { policy: "select", costs });
      const all = pair.split.actions.flat(), splits = all.filter(({ kind }) => kind === "I").length;
      const backwards = splits + all.filter(({ kind }) => kind === "B").length;
      say(`${base.name}: ${splits} of ${backwards} backwards are split, which is what these devices gain by.`);
      result.push(pair);
    } finally {
      pipeline.close();
    }
  }
  return result;
}

/** Measures the kernels that the model's steps need, with the micro-batches of a W apart and together. */
async function calibrateFor(
  set: DeviceSet,
  { model, sums, precision }: Options,
  samples: number,
  pairs: readonly SchedulePair[],
): Promise<Calibration> {
  const [{ gpu }] = set.devices;
  const widest = Math.max(...pairs.map(({ split }) => sizesOf(split).width));
  const problems = [];
  for (const width of new Set([1, widest])) {
    problems.push(
      ...await problemsOf(createModel(model), samples, gpu, {
        width,
        precision,
        sums: typeof sums === "string" ? sums : "w",
      }),
    );
  }
  let bar: ProgressLine | undefined;
  const onProgress = (done: number, total: number) => (bar ??= progress(total, "kernel choices")).to(done);
  return await calibrate(set.devices, problems, { onProgress }).finally(() => bar?.done());
}

function calibrationNote({ results, known, ms }: Calibration): string {
  const changed = results.filter(({ usual, best }) => usual !== best).length;
  return `Kernels: ${results.length} choices measured in ${
    (ms / 1e3).toFixed(1)
  } s, ${changed} differ from the rule's; ` +
    `${known} known from before.`;
}

/**
 * The largest power of two for which all pairs fit the time that a run may take: large micro-batches drown the host's
 * share of a step, small machines finish all the same. Timed on the first schedule, in a pipeline of its own.
 */
async function chooseSamples(
  make: MakePipeline,
  source: BatchSource,
  pairs: readonly SchedulePair[],
  repeats: number,
  parallel: boolean,
): Promise<number> {
  const [{ base: probe }] = pairs;
  const pipeline = make(probe.placement);
  const timed = async (samples: number) =>
    (await pipeline.step(probe, await source.next(samples * sizesOf(probe).microbatches * pipeline.replicas))).wallMs;
  /** In shares of a rank's part of the model, whatever the number of its stages. */
  const unitsOf = (schedule: Schedule) => {
    const { makespan, busy } = simulate(schedule);
    const stages = schedule.placement.length / schedule.actions.length;
    return (parallel ? makespan : pipeline.replicas * busy.reduce((sum, time) => sum + time, 0)) / stages;
  };
  const units = pairs.reduce((sum, { base, split }) => sum + unitsOf(base) + unitsOf(split), 0) * (repeats + 1);
  try {
    await timed(1); // compiles
    let samples = 1;
    for (; samples < 4096; samples *= 2) {
      const perUnit = Math.min(await timed(2 * samples), await timed(2 * samples)) / unitsOf(probe);
      if (perUnit * units > budgetMs) break;
    }
    return samples;
  } finally {
    pipeline.close();
  }
}

if (import.meta.main) await main(throughput);
