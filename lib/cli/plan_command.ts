/** `deno task schedule plan`: the fastest schedule, policy and recomputation within a budget of memory, without a GPU. */
import { basename } from "node:path";
import { Command } from "commander";
import { UserError } from "../errors.ts";
import { createModel } from "../models/registry.ts";
import type { PlanOptions } from "../planning/options.ts";
import { plan } from "../planning/plan.ts";
import { clusterLines, gaveUp, planCut, planErrors, planJson, planReplicas, planTable } from "../report/plan.ts";
import { progress, type ProgressLine } from "../report/progress.ts";
import { tableText } from "../report/table.ts";
import type { Precision } from "../runtime/pipeline.ts";
import { toCsv } from "../schedules/csv/csv.ts";
import { escaped } from "../text.ts";
import { onNames, predictedFor } from "./predicted_for.ts";
import * as flag from "./flags.ts";
import { bytes, integer, pairs } from "./options.ts";
import { loadCluster } from "./load_cluster.ts";
import { openOutputs } from "./outputs.ts";
import { warnOfOwnCells } from "./own_cells.ts";

interface Flags {
  model: string;
  devices?: number;
  microbatches?: number;
  samples: number;
  budget: number;
  precision: Precision;
  on?: typeof onNames[number];
  cluster?: string;
  replicas?: number | "auto";
  hosts?: number;
  network?: typeof defaultNetwork;
  shardOptimizer?: boolean;
  apart?: boolean;
  json?: string;
  csv?: string;
  html?: string;
  out?: string;
}

const defaultNetwork = { latency: 0, bandwidth: NaN, betweenLatency: NaN, betweenBandwidth: NaN, speed: NaN };

/** Links in seconds and bytes, and operations a second. */
function networkOf(given: typeof defaultNetwork | undefined): PlanOptions["network"] {
  if (!given) return undefined;
  const { latency, bandwidth, speed } = given;
  for (const [name, value] of Object.entries({ bandwidth, speed })) {
    if (!(value > 0)) throw new UserError(`--network needs ${name}=NUMBER above 0`);
  }
  const or = (value: number, otherwise: number) => Number.isNaN(value) ? otherwise : value;
  const link = (latency: number, bandwidth: number) => ({ latency: latency / 1e6, bandwidth: 1e9 * bandwidth });
  return {
    inside: link(latency, bandwidth),
    between: link(or(given.betweenLatency, latency), or(given.betweenBandwidth, bandwidth)),
    operations: 1e12 * speed,
  };
}

/** The command line. */
export function planCommand(): Command {
  return new Command("plan")
    .description("Choose the fastest schedule, 2BP policy and recomputation of a model that fit a budget of memory.")
    .addOption(flag.model().makeOptionMandatory())
    .requiredOption("--budget <size>", "memory of each device: 24GiB, 800MiB, 16e9", bytes)
    .option(
      "--devices <n>",
      "devices, ranks times replicas, 1 to 4096 with at most 64 ranks (default: 4, or the ranks of --cluster)",
      integer(1, 4096),
    )
    .option(
      "--replicas <r>",
      "copies of the pipeline that share the batch: devices are cut into so many pipelines; auto tries what divides both " +
        "(default: 1)",
      (text: string) => text === "auto" ? text : integer(1, 4096)(text),
    )
    .option("--hosts <h>", "machines that the devices are on, as many on each (default: 1)", integer(1, 4096))
    .option(
      "--network <pairs>",
      "links inside a host and between hosts, and what a device computes: latencies in microseconds, bandwidths in GB/s, speed in " +
        "TFLOP/s; bandwidth and speed are needed, between hosts it is as inside unless said",
      pairs(defaultNetwork),
    )
    .addOption(flag.shardOptimizer())
    .option(
      "--apart",
      "ranks are in processes of their own, as mpirun starts them: messages that arrive take memory there",
    )
    .addOption(flag.microbatches(65_536, "two a rank and replica"))
    .addOption(flag.samples(1))
    .addOption(flag.precision())
    .addOption(flag.on())
    .option(
      "--cluster <file>",
      "times of each stage, of messages, hosts and ends of steps, in milliseconds, in place of counted work: JSON that " +
        "schedule import writes, of this model, cut by work, at these samples and this precision. Only schedules of the file's " +
        "number of stages are tried; what is recomputed is added at the stage's time an operation",
    )
    .addOption(flag.json("the plan"))
    .addOption(flag.csv())
    .addOption(flag.html("the plan"))
    .addOption(flag.out())
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  const out = openOutputs(flags);
  const cluster = flags.cluster === undefined ? undefined : loadCluster(flags.cluster);
  const file = flags.cluster === undefined ? undefined : escaped(basename(flags.cluster));
  const { replicas = 1, hosts, shardOptimizer, apart } = flags, count = replicas === "auto" ? 1 : replicas;
  const { samples, budget, precision, devices = (cluster?.ranks ?? 4) * count, microbatches = 2 * devices } = flags;
  if (replicas !== "auto" && devices / count > 64) {
    throw new UserError(
      `--devices ${devices} makes pipelines of ${devices / count} ranks; 64 is the most, so take more --replicas`,
    );
  }
  const model = createModel(flags.model);
  const network = networkOf(flags.network);
  const options = {
    devices,
    microbatches,
    samples,
    budget,
    precision,
    ...await predictedFor(flags.on),
    ...replicas !== 1 && { replicas },
    ...hosts !== undefined && { hosts },
    ...shardOptimizer && { shardOptimizer },
    ...apart && { apart },
    ...network && { network },
    ...cluster && { cluster },
  };
  let bar: ProgressLine | undefined; // none where the options are refused
  const onProgress = (share: number) => (bar ??= progress(100, "percent")).to(Math.round(100 * share));
  const result = await plan(model, { ...options, onProgress }).finally(() => bar?.done());
  const title =
    `${model.name} on ${devices / result.replicas} ranks${
      result.replicas > 1 ? ` in ${result.replicas} replicas` : ""
    }, ` +
    `${microbatches} micro-batches of ${samples}, ${precision} (predicted${flags.on ? ` for ${options.kind}` : ""})`;
  const table = planTable(result, budget);
  const said = [
    gaveUp(result),
    ...[planCut(result), planReplicas(result)].filter((line) => line !== ""),
    ...file === undefined ? [] : clusterLines(result, file),
    planErrors(result),
  ].join("\n");
  out.say(title);
  out.say(tableText(table));
  out.say(said);
  if (flags.csv || flags.out) warnOfOwnCells(result.schedule);
  await out.results("schedule", {
    title,
    report: planJson(model, options, result, file),
    sections: () => [{ heading: "Plan", text: said, table }],
    csv: () => toCsv(result.schedule),
  });
}
