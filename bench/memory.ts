/** `deno task bench memory`: peak memory of each schedule, predicted from shapes and measured, by rank and category. */
import { Command } from "commander";
import { adamw, createModel, type DeviceSet, type Schedule, type StepResult, UserError } from "twobp";
import { blankBatch, countRows, dryPipeline, type MemoryOptions, reportMemory } from "twobp/measure";
import { joinedNote, memorySections, memoryTable, progress, tableText } from "twobp/report";
import { partition, type Precision, type RecomputeText, sumsOf, type SumsPolicy } from "twobp/runtime";
import { pairOf, paperSchedules, type PolicyText, sizesOf } from "twobp/schedules";
import { onNames, predictedFor } from "../lib/cli/predicted_for.ts";
import * as flag from "../lib/cli/flags.ts";
import { loadSchedules } from "../lib/cli/load_schedule.ts";
import { integer, main } from "../lib/cli/options.ts";
import { openOutputs, type Outputs } from "../lib/cli/outputs.ts";
import { devicesOf, expectReplicas, ranksOf } from "../lib/cli/replica_flags.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import { runGrowth } from "./growth.ts";
import { memoryModels } from "./stage_memory.ts";

/** Growth is looked for in a step of this one, unless `--schedules` says otherwise. */
const repeated = "1f1b-1";

interface Options {
  model: string;
  devices?: number;
  replicas?: number;
  shardOptimizer?: boolean;
  virtual?: boolean;
  predict?: boolean;
  on?: typeof onNames[number];
  schedules: string[];
  policies: PolicyText[];
  recompute: RecomputeText[];
  sums: SumsPolicy[];
  precision: Precision;
  width?: number;
  samples?: number;
  steps?: number;
  json?: string;
  html?: string;
  out?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const memory = new Command("memory")
  .description("Peak memory of pipeline schedules without and with 2BP, by rank and category: predicted and measured.")
  .addOption(flag.model("llama-tiny"))
  .addOption(flag.devicesOfReplicas(64, 2))
  .addOption(flag.replicas(64))
  .addOption(flag.shardOptimizer())
  .addOption(flag.virtual())
  .option("--predict", "run nothing: predictions alone, for a model of any size")
  .addOption(flag.on())
  .addOption(flag.schedules())
  .addOption(flag.policies(["fill", "lean", "end", "mid", "every:2"]))
  .addOption(flag.width(64))
  .addOption(flag.recomputes())
  .addOption(flag.severalSums())
  .addOption(flag.precision())
  .addOption(flag.samples("4, and 1 with --steps"))
  .option(
    "--steps <n>",
    `instead: repeat a step of the first schedule (default: ${repeated}), with 2BP of the first policy, this often ` +
      "(10 to 1000000; 1000 of llama-tiny take a minute or two) and tell whether memory grows",
    integer(10, 1_000_000),
  )
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

async function run(options: Options): Promise<void> {
  const { model, steps, predict, on, virtual, replicas = 1, shardOptimizer } = options;
  if (steps && predict) throw new UserError("--steps runs a pipeline: it goes without --predict");
  if (on && !predict) {
    throw new UserError("--on goes with --predict: what is measured is on the devices that are opened");
  }
  expectReplicas(undefined, options);
  const out = openOutputs(options);
  const names = steps && options.schedules === paperSchedules ? [repeated] : options.schedules;
  const bases = loadSchedules(names, ranksOf(options.devices, options), 2, { replicas });
  for (const { placement } of bases) {
    partition(createModel(model), placement); // explains too many stages
    options.sums.forEach((sums) => sumsOf(sums, placement.length)); // and makers for other stages
  }
  const devices = devicesOf(bases[0].actions.length, options);
  if (predict) return await reportPeaks(out, bases, options, await predictedFor(on));
  await withDevices(devices, { virtual, inJob: true, replicas, say: out.say }, async (set) => {
    if (!steps) return await reportPeaks(out, bases, options, set.devices[0].gpu.info, set);
    const { recompute: [recompute], sums: [sums], precision, samples = 1, policies: [policy], width } = options;
    const schedule = pairOf(bases[0], { policy, width }).split;
    await runGrowth(set, out, {
      model,
      schedule,
      recompute,
      sums,
      precision,
      replicas,
      shardOptimizer,
      samples,
      steps,
    });
  });
}

async function reportPeaks(
  out: Outputs,
  bases: readonly Schedule[],
  options: Options,
  { kind, subgroupSize }: Pick<MemoryOptions, "kind" | "subgroupSize">,
  set?: DeviceSet,
): Promise<void> {
  const { policies, recompute, sums, width, precision, samples = 4, replicas = 1, shardOptimizer } = options;
  const copies = { replicas, shardOptimizer };
  const model = () => createModel(options.model);
  // Policies are made for the first kind of recomputation and the first maker of sums.
  const shape = {
    optimizer: adamw(),
    kind,
    subgroupSize,
    apart: set !== undefined && "process" in set, // ranks in several processes
    precision,
    recompute: recompute[0],
    sums: sums[0],
    ...copies,
  };
  const memoryOf = memoryModels(options.model, { ...shape, samples, width });
  const schedules: Schedule[] = [];
  for (const base of bases) {
    const memory = await memoryOf(base);
    const pairs = policies.map((policy) => pairOf(base, { policy, width, memory }));
    schedules.push(pairs[0].base, ...(sizesOf(base).split ? [base] : pairs.map(({ split }) => split)));
  }
  const bar = progress(countRows({ schedules, recompute, sums }), "rows");
  const measured = await reportMemory(model, {
    schedules,
    samples,
    recompute,
    sums,
    precision,
    ...copies,
    optimizer: adamw(),
    ...(set ? { set } : { kind, subgroupSize }),
    onRow: () => bar.step(),
  }).finally(bar.done);
  const joined = bases.filter((base) => sizesOf(base).split).map(({ name }) => name);
  const rows = measured.rows.map((row) =>
    !row.twoStage && joined.includes(row.schedule) ? { ...row, joined: true as const } : row
  );
  const report = { ...measured, rows };
  const on = set
    ? `${report.devices} ${set.mode} devices, ${set.adapter}`
    : `${report.devices} ranks, predicted${options.on ? ` for ${kind}` : ""}`;
  const shared = replicas === 1 ? "" : `, of ${replicas} replicas${shardOptimizer ? ", the optimizer sharded" : ""}`;
  out.say(
    `Peak MiB of ${report.model.name} on ${on}${shared}; micro-batches of ${samples}; ${report.precision}; AdamW`,
  );
  out.say(tableText(memoryTable(report)));
  for (const note of joinedNote(rows)) out.say(note);
  await out.results("bench", {
    title: "Memory of schedules",
    report,
    sections: async () => memorySections(report, await timelinesOf(schedules, options.model, samples, shape)),
  });
}

/** What the ledgers say in the course of a step, predicted, by name of the schedule. */
async function timelinesOf(schedules: readonly Schedule[], name: string, samples: number, shape: MemoryOptions) {
  const timelines = new Map<string, NonNullable<StepResult["timeline"]>>();
  for (const schedule of schedules) {
    const { policy, placement } = schedule;
    const { devices, microbatches, split } = sizesOf(schedule);
    const model = createModel(name);
    const pipeline = dryPipeline(model, devices, { ...shape, placement });
    const batch = blankBatch(model, samples * microbatches * pipeline.replicas);
    // Replicas are alike, but for pieces of a sharded optimizer, of which the last has the largest.
    const timeline = (await pipeline.step(schedule, batch, { timeline: true })).timeline!.slice(-devices);
    pipeline.close();
    const how = policy ?? (split ? "split by itself" : "without 2BP");
    timelines.set(`${schedule.name}, ${how}: memory over time, predicted`, timeline);
  }
  return timelines;
}

if (import.meta.main) await main(memory);
