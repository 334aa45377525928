/** `deno task bench processes`: ranks in processes of their own, by MPI, against as many in one process, in turn in one job. */
import { availableParallelism, cpus } from "node:os";
import { Command } from "commander";
import { adamw, createModel, createPipeline, openDevices, type Pipeline, type Schedule, UserError } from "twobp";
import { median, quartiles } from "twobp/measure";
import { chromeTraces, type ComparedStep, progress, runTimeline, type Table, tableText } from "twobp/report";
import { clocksBetween, openWorld, partition, readClocks } from "twobp/runtime";
import { sizesOf } from "twobp/schedules";
import * as flag from "../lib/cli/flags.ts";
import { loadPairs } from "../lib/cli/load_schedule.ts";
import { main } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { sourceFor } from "./data.ts";
import { clock } from "./in_turns.ts";

interface Options {
  model: string;
  schedules: string[];
  repeats: number;
  samples: number;
  trace?: string;
  json?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const processes = new Command("processes")
  .description("Step times of ranks in processes of their own over those of as many in one; started by mpirun.")
  .addOption(flag.model("llama-tiny"))
  .addOption(flag.schedules())
  .addOption(flag.repeats("rounds", 11))
  .addOption(flag.samples(16))
  .option("--trace <file>", "write a step of each, all processes on one clock, for ui.perfetto.dev")
  .addOption(flag.json())
  .action(run);

/** Step times of a schedule in milliseconds, each with that of the other way right beside it. */
interface Row {
  readonly schedule: string;
  readonly twoStage: boolean;
  readonly oneMs: number[];
  readonly severalMs: number[];
  /** Processor time of the same steps, in all threads; of several processes their sum. */
  readonly oneCpuMs: number[];
  readonly severalCpuMs: number[];
}

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { repeats, samples } = options;
  const world = await openWorld(), { size, exchange } = world.world;
  // A launcher's binding would hold the one process too, whose ranks then share what one rank has in the other.
  if (availableParallelism() < cpus().length) {
    throw new UserError(
      `This process is held to ${availableParallelism()} of ${cpus().length} cores, and so would be all ranks in one: ` +
        "mpirun --bind-to none, or srun --cpu-bind=none, compares like with like",
    );
  }
  const pairs = loadPairs(options.schedules, size, size);
  const model = createModel(options.model);
  for (const { base } of pairs) partition(model, base.placement); // explains too many stages
  // The first process has devices for all ranks besides its own; meanwhile the others wait.
  const alone = world.process === 0 ? await openDevices(size, { virtual: false }) : undefined;
  const rows: Row[] = [], traced: ComparedStep[] = [];
  const bar = progress(2 * pairs.length * (repeats + 1));
  try {
    for (const { base, split } of pairs) {
      const { placement } = base, how = { optimizer: adamw({ learningRate: 1e-3 }), placement, seed: 1 };
      const several = createPipeline(world, model, how), one = alone && createPipeline(alone, model, how);
      const sources = [sourceFor(model, undefined, 1).source, sourceFor(model, undefined, 1).source];
      const step = async (pipeline: Pipeline, at: number, schedule: Schedule) => {
        const batch = await sources[at].next(samples * sizesOf(schedule).microbatches);
        const since = clock();
        await pipeline.step(schedule, batch);
        return since();
      };
      const pair: Row[] = [base, split].map(({ name }, at) => ({
        schedule: name,
        twoStage: at > 0,
        oneMs: [],
        severalMs: [],
        oneCpuMs: [],
        severalCpuMs: [],
      }));
      for (let round = 0; round <= repeats; round++) {
        for (const [at, schedule] of [base, split].entries()) {
          const alone = one && await step(one, 0, schedule);
          await exchange!(undefined);
          const together = await step(several, 1, schedule);
          const processors = await exchange!(together.cpuMs) as readonly number[];
          bar.step();
          if (round === 0 || !alone) continue; // kernels are compiled and buffers made
          pair[at].oneMs.push(alone.ms);
          pair[at].severalMs.push(together.ms);
          pair[at].oneCpuMs.push(alone.cpuMs);
          pair[at].severalCpuMs.push(processors.reduce((sum, each) => sum + each, 0));
        }
      }
      rows.push(...pair);
      if (options.trace !== undefined) {
        for (const [at, schedule] of [base, split].entries()) {
          const batch = await sources[1].next(samples * sizesOf(schedule).microbatches),
            before = await readClocks(world);
          const result = await several.step(schedule, batch);
          const clocks = clocksBetween(before, await readClocks(world));
          const timeline = runTimeline(schedule, world.mode, { ...result, clocks });
          if (timeline) {
            traced.push({ schedule, timeline, title: `${schedule.name}${at > 0 ? ", 2BP" : ""}, ${size} processes` });
          }
        }
      }
      several.close();
      one?.close();
    }
  } finally {
    bar.done();
    alone?.close();
    world.close();
  }
  const { adapter, library } = world;
  out.say(
    `\n${model.name} on ${size} devices (${adapter}), micro-batches of ${samples}: ${size} processes (${library}) over one`,
  );
  out.say(tableText(tableOf(rows)));
  if (world.notice) out.say(`${world.notice}.`);
  await out.results("bench", {
    title: "Processes",
    report: {
      ...{ schema: 1, model: model.name, devices: size, adapter, transport: "mpi", library, samples, rows },
      // How wrong times of two ranks may be in a trace, step by step.
      ...(traced.length > 0 ? { clockErrorMs: traced.map(({ timeline }) => timeline.clocks!.error) } : {}),
    },
    sections: () => [],
    trace: () => chromeTraces(traced),
  });
}

function tableOf(rows: readonly Row[]): Table {
  return {
    columns: ["schedule", "2BP", "one process, ms", "several, ms", "several over one", "quartiles", "processor time"],
    rows: rows.map(({ schedule, twoStage, oneMs, severalMs, oneCpuMs, severalCpuMs }) => {
      const ratios = severalMs.map((ms, at) => ms / oneMs[at]);
      return [
        schedule,
        twoStage ? "yes" : "no",
        median(oneMs).toFixed(1),
        median(severalMs).toFixed(1),
        median(ratios).toFixed(3),
        quartiles(ratios).map((each) => each.toFixed(2)).join(" - "),
        median(severalCpuMs.map((ms, at) => ms / oneCpuMs[at])).toFixed(3),
      ];
    }),
  };
}

if (import.meta.main) await main(processes);
