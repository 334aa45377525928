/**
 * `deno task schedule`: shows, validates, prices and searches schedules, without a GPU.
 *
 * @module
 */

import process from "node:process";
import { Command } from "commander";
import { UserError } from "../errors.ts";
import { ganttText } from "../report/gantt_text.ts";
import { progress, type ProgressLine } from "../report/progress.ts";
import {
  clusterErrorText,
  criticalPathText,
  type Priced,
  priceOf,
  replicasText,
  scheduleJson,
  scheduleSections,
  scheduleTable,
  slowerText,
  variantOf,
} from "../report/schedule.ts";
import { tableText } from "../report/table.ts";
import { chromeTrace } from "../report/trace.ts";
import type { PolicyText, Schedule } from "../schedules/schedule.ts";
import { type Cluster, clusterCosts } from "../schedules/price/cluster.ts";
import { type Costs, stageCosts, withHostOverhead } from "../schedules/price/costs.ts";
import { toCsv } from "../schedules/csv/csv.ts";
import { scheduleNames } from "../schedules/generators/generate.ts";
import { zoo } from "../schedules/generators/zoo.ts";
import { linearPlacement } from "../schedules/generators/placement.ts";
import type { Memory } from "../schedules/price/memory.ts";
import { memoryTimeline } from "../schedules/price/memory_timeline.ts";
import { type ReplicaOptions, withReplicas } from "../schedules/price/replicas.ts";
import { simulate } from "../schedules/price/simulate.ts";
import { searchVerdict } from "../report/search.ts";
import { search } from "../schedules/search/search.ts";
import { forwardOnly } from "../schedules/transforms/forward_only.ts";
import { plainMakespan } from "../schedules/transforms/plain.ts";
import { recomputeAhead } from "../schedules/transforms/recompute_ahead.ts";
import { twoStage } from "../schedules/transforms/two_stage.ts";
import { onNextInterrupt } from "./endings.ts";
import { type ExportFlags, exportFlags, exportTo } from "./export_command.ts";
import * as flag from "./flags.ts";
import { loadSchedule } from "./load_schedule.ts";
import { integer, pairs, real } from "./options.ts";
import { explainCommand } from "./explain_command.ts";
import { importCommand } from "./import_command.ts";
import { loadCluster } from "./load_cluster.ts";
import { openOutputs, type Outputs } from "./outputs.ts";
import { planCommand } from "./plan_command.ts";
import { ranksOf, type ReplicaFlags, replicaFlags, replicasGiven } from "./replica_flags.ts";
import { warnOfOwnCells } from "./own_cells.ts";
import { sizesOf } from "../schedules/check/sizes.ts";

const chunked = zoo.filter(({ isChunked }) => isChunked).map(({ name, chunks }) => `${name} (default: ${chunks})`).join(
  ", ",
);
const defaultCosts = { f: 1, i: 1, w: 1, b: NaN, r: 0, comm: 0, host: 0 };
const defaultMemory = { activations: 1, released: 0, derivatives: 1, recomputed: 0 };

/** How many ranks and stages a schedule has. */
interface Sizes {
  devices: number;
  stages: number;
}

interface Flags extends ReplicaFlags {
  devices?: number;
  microbatches?: number;
  chunks?: number;
  splitStages?: number;
  twoStage?: boolean;
  forwardOnly?: boolean;
  recomputeAhead?: boolean;
  policy?: PolicyText;
  width?: number;
  costs?: typeof defaultCosts;
  cluster?: string;
  memory?: typeof defaultMemory;
  cap?: number;
  budget?: number;
  json?: string;
  csv?: string;
  transfers?: boolean;
  trace?: string;
  html?: string;
  out?: string;
}

/** Above so many actions a browser no longer draws a page, or opens a trace, in good time. */
const mostDrawn = { html: 20_000, out: 20_000, trace: 400_000 };

/** The command with its sub-commands. */
export function scheduleCommand(): Command {
  const program = new Command("schedule").description(
    "Pipeline schedules as data: show, validate, simulate, search, plan and export them, and learn from traces of a run, " +
      "without a GPU. " +
      `A schedule is a name (${scheduleNames.join(", ")}) or a CSV file in PyTorch's format.`,
  );
  const sub = (name: string, description: string, argument = "<schedule>") =>
    outputs(
      sizes(program.command(name).description(description).argument(argument, "name of a schedule, or a CSV file")),
    );
  transforms(sub("show", "Draw a schedule in the terminal.")).action(async (name: string, flags: Flags) => {
    const out = outputsOf(flags);
    const rows = price(name, flags);
    const colour = Boolean(process.stdout.isTTY) && !process.env.NO_COLOR;
    const width = process.stdout.columns || 120;
    await write(out, flags, rows, () => {
      for (const { schedule, simulation } of rows) {
        sayLines(out, title(schedule), ganttText(schedule, simulation, { width, colour }), slowerText(schedule));
      }
      sayLines(out, replicasText(rows[rows.length - 1]), errorText(flags));
    });
  });
  transforms(sub("validate", "Check that a schedule is complete, in order, and cannot deadlock."))
    .action(async (name: string, flags: Flags) => {
      const out = outputsOf(flags);
      const rows = price(name, flags);
      const { schedule } = rows[rows.length - 1];
      const count = schedule.actions.reduce((sum, list) => sum + list.length, 0);
      await write(out, flags, rows, () => out.say(`${title(schedule)}: valid, ${count} actions`));
    });
  transforms(sub("simulate", "Price a schedule: makespan, bubble, memory, critical path."))
    .action(async (name: string, flags: Flags) => {
      const out = outputsOf(flags);
      const rows = price(name, flags);
      await write(out, flags, rows, () => {
        const { schedule, simulation } = rows[rows.length - 1];
        sayLines(out, `${title(schedule)} (simulated)`, tableText(scheduleTable(rows)), criticalPathText(simulation));
        sayLines(out, slowerText(schedule), replicasText(rows[rows.length - 1]), errorText(flags));
      });
    });
  sub(
    "search",
    "Find the fastest schedule, each backward whole (B) or split (I and W), with stages placed as those of a schedule, " +
      "or one a rank.",
    "[schedule]",
  )
    .option("--cap <amount>", "most memory a rank may hold, in the unit of --memory", real(0, Number.MAX_VALUE))
    .option("--budget <count>", "candidates to look at before giving up on a proof", integer(1, 1e9), 1e6)
    .action(runSearch);
  exportFlags(
    transforms(
      sizes(
        program.command("export").description("Write a schedule with what it takes to run it in PyTorch.")
          .argument("<schedule>", "name of a schedule, or a CSV file"),
      ),
    ),
  ).action((name: string, folder: string, flags: Flags & ExportFlags) => {
    const { schedule } = price(name, flags).at(-1)!;
    return exportTo(schedule, folder, flags);
  });
  return program.addCommand(planCommand()).addCommand(importCommand()).addCommand(explainCommand());
}

function sizes(command: Command): Command {
  return replicaFlags(command)
    .addOption(flag.devices(1, 4096, 4))
    .addOption(flag.microbatches(65_536, "the schedule's usual number"))
    .option("--chunks <v>", `stages on each rank, for ${chunked}`, integer(1, 64))
    .addOption(flag.splitStages())
    .option(
      "--costs <pairs>",
      "time of F, I, W and B on a stage (with --split-stages a whole one), of what of I and B recomputes, of a transfer, and of the host for each action " +
        "(default: f=1,i=1,w=1,r=0,comm=0,host=0, and b=i+w)",
      pairs(defaultCosts),
    )
    .option(
      "--cluster <file>",
      "times of each stage, of messages, hosts and ends of steps, in milliseconds, in place of --costs: " +
        "JSON that schedule import writes",
    )
    .option(
      "--memory <pairs>",
      "what a stage (with --split-stages a whole one) holds: activations from F on, the part released after I, derivatives from I to W, what is recomputed ahead from R to I " +
        "(default: activations=1,released=0,derivatives=1,recomputed=0)",
      pairs(defaultMemory),
    );
}

function transforms(command: Command): Command {
  return command
    .addOption(flag.twoStage())
    .option(
      "--recompute-ahead",
      "before each I and B an R of its own, which recomputes while the gradient is on its way",
    )
    .option("--forward-only", "the forward passes alone, as an evaluation runs them")
    .addOption(flag.policy("fill"))
    .addOption(flag.width(65_536));
}

function outputs(command: Command): Command {
  return command
    .addOption(flag.json("figures and actions"))
    .addOption(flag.csv())
    .option("--transfers", "with --csv: add SEND, RECV, REDUCE_GRAD and UNSHARD cells")
    .option("--trace <file>", "write a trace for ui.perfetto.dev")
    .addOption(flag.html("drawings, memory curves and the critical path"))
    .addOption(flag.out());
}

/** The costs that the flags give for so many ranks and stages; `who` has them. */
function costsOf(flags: Flags, cluster: Cluster | undefined, who: string, sizes: Sizes): Costs {
  const { devices, stages } = sizes, { costs = defaultCosts, splitStages = 1, replicas = 1 } = flags;
  if (cluster) {
    if (splitStages > 1) {
      throw new UserError("--cluster has times of whole stages, and --split-stages cuts them: give one of the two");
    }
    if (cluster.ranks !== devices || cluster.stages.length !== stages) {
      throw new UserError(
        `--cluster has times of ${cluster.ranks} ranks and ${cluster.stages.length} stages, and ${who} has ${devices} ranks ` +
          `and ${stages} stages; give the same${
            replicas > 1 ? `, as --devices ${replicas * cluster.ranks} has in ${replicas} replicas` : ""
          }`,
      );
    }
    return clusterCosts(cluster);
  }
  const { comm, host } = costs;
  const [f, i, w, b, r] = [costs.f, costs.i, costs.w, costs.b, costs.r].map((time) => time / splitStages);
  const stage = Number.isNaN(b) ? { f, i, w, r } : { f, i, w, b, r };
  const priced = stageCosts(Array.from({ length: stages }, () => stage), comm);
  return host > 0 ? withHostOverhead(priced, host) : priced;
}

/** The file of `--cluster`, where there is one. */
function clusterGiven({ cluster, costs }: Flags): Cluster | undefined {
  if (cluster === undefined) return undefined;
  if (costs) throw new UserError("--costs and --cluster both say what actions take; give one of them");
  return loadCluster(cluster);
}

/** The schedule of a name or file; on as many ranks as the cluster has, where nobody says. */
function scheduleOf(name: string, flags: Flags, cluster: Cluster | undefined): Schedule {
  const usual = scheduleNames.includes(name) ? cluster?.ranks : undefined;
  return loadSchedule(name, { ...flags, devices: ranksOf(flags.devices, flags) ?? usual });
}

/** The costs of replicas, one for each way to place them that is to be tried; those of the pipeline where there is one. */
function replicatedCosts(
  flags: Flags,
  cluster: Cluster | undefined,
  costs: Costs,
  placement: readonly number[],
): { costs: Costs; options?: ReplicaOptions }[] {
  const given = replicasGiven(flags, cluster);
  if (given.length === 0) return [{ costs }];
  return given.map((options) => ({ costs: withReplicas(costs, placement, options), options }));
}

/** A priced schedule with what its replicas add. */
function withReplicated(row: Priced, costs: Costs, options: ReplicaOptions | undefined): Priced {
  if (!options || options.replicas === 1) return row;
  const { replicas, hosts = 1, neighbours = "ranks", way = "direct", shardOptimizer = false } = options;
  const { sum: _, ...rest } = costs;
  const replicated = {
    replicas,
    hosts,
    neighbours,
    way,
    shardOptimizer,
    withoutSums: simulate(row.schedule, rest).makespan,
    plain: plainMakespan(row.schedule, costs),
  };
  return { ...row, replicated };
}

/** The rows of the way to place replicas whose last row is shortest. */
function shortest(tried: readonly Priced[][]): Priced[] {
  const lengthOf = (rows: readonly Priced[]) => rows[rows.length - 1].simulation.makespan;
  return tried.reduce((best, rows) => lengthOf(rows) < lengthOf(best) * (1 - 1e-9) ? rows : best);
}

function memoryOf({ memory = defaultMemory, splitStages = 1 }: Flags): Memory {
  if (memory.released > memory.activations) {
    throw new UserError(`--memory releases ${memory.released} of ${memory.activations} activations; it cannot be more`);
  }
  const [activations, released, derivatives, recomputed] = [
    memory.activations,
    memory.released,
    memory.derivatives,
    memory.recomputed,
  ].map((amount) => amount / splitStages);
  return () => ({ activations, released, derivatives, ahead: { activations: recomputed } });
}

/** The schedule that the flags ask for, with its price; before it the one without 2BP, where they ask for 2BP. */
function price(name: string, flags: Flags): Priced[] {
  const { policy, width } = flags;
  const cluster = clusterGiven(flags);
  const loaded = scheduleOf(name, flags, cluster);
  const base = flags.forwardOnly ? forwardOnly(loaded) : flags.recomputeAhead ? recomputeAhead(loaded) : loaded;
  if (flags.forwardOnly && flags.twoStage) {
    throw new UserError("--two-stage splits backward passes, and --forward-only leaves none: give one of the two");
  }
  if (!flags.twoStage && (policy || width)) {
    throw new UserError(`${policy ? "--policy" : "--width"} says how --two-stage places W; add --two-stage`);
  }
  if (flags.forwardOnly && flags.recomputeAhead) {
    throw new UserError(
      "--recompute-ahead is for backward passes, and --forward-only leaves none: give one of the two",
    );
  }
  const own = costsOf(flags, cluster, base.name, sizesOf(base));
  const memory = memoryOf(flags);
  if (flags.forwardOnly && (flags.replicas ?? 1) > 1) {
    throw new UserError("--replicas sums gradients, and --forward-only leaves none: give one of the two");
  }
  return shortest(
    replicatedCosts(flags, cluster, own, base.placement).map(({ costs, options }) => {
      const schedules = flags.twoStage ? [base, twoStage(base, { policy, width, costs, memory })] : [base];
      return schedules.map((schedule) => withReplicated(priceOf(schedule, costs, memory), costs, options));
    }),
  );
}

function outputsOf(flags: Flags): Outputs {
  const out = openOutputs(flags);
  if (flags.transfers && !flags.csv && !flags.out) {
    throw new UserError("--transfers says how --csv writes; add --csv FILE");
  }
  memoryOf(flags);
  return out;
}

function title(schedule: Schedule): string {
  const { devices, stages, microbatches } = sizesOf(schedule);
  return `${variantOf(schedule)} on ${devices} ranks, ${stages} stages, ${microbatches} micro-batches`;
}

/** What is known of the error of what was simulated: nothing, of a file's times; costs that are given are exact. */
function errorText({ cluster }: Flags): string {
  return cluster === undefined ? "" : clusterErrorText();
}

/** What is not empty, each without its last line feed. */
function sayLines(out: Outputs, ...texts: readonly string[]): void {
  for (const text of texts) if (text) out.say(text.replace(/\n$/, ""));
}

/** Says what there is to say, and writes what the flags ask for, of the last row. */
async function write(out: Outputs, flags: Flags, rows: readonly Priced[], say: () => void): Promise<void> {
  const last = rows[rows.length - 1];
  const { schedule, simulation } = last;
  const memory = memoryOf(flags);
  for (const flag of ["html", "out", "trace"] as const) {
    if (flags[flag] && simulation.spans.length > mostDrawn[flag]) {
      throw new UserError(
        `--${flag} draws at most ${mostDrawn[flag]} actions, and ${schedule.name} has ${simulation.spans.length}`,
      );
    }
  }
  say();
  if (flags.csv || flags.out) warnOfOwnCells(schedule);
  await out.results("schedule", {
    title: `${title(rows[0].schedule)} (simulated)`,
    report: { ...scheduleJson(last), ...(flags.cluster && { errorBar: null }) },
    sections: () => scheduleSections(rows, memory),
    csv: () => toCsv(schedule, { transfers: flags.transfers }),
    trace: () => {
      const held = memoryTimeline(schedule, simulation.spans, memory);
      return chromeTrace(schedule, simulation, { memory: held, title: `${title(schedule)} (simulated)` });
    },
  });
}

async function runSearch(name: string | undefined, flags: Flags): Promise<void> {
  const out = outputsOf(flags);
  const cluster = clusterGiven(flags);
  const base = name === undefined ? undefined : scheduleOf(name, flags, cluster);
  const sizes = base && sizesOf(base);
  const devices = sizes?.devices ?? ranksOf(flags.devices, flags) ?? cluster?.ranks ?? 4;
  const microbatches = sizes?.microbatches ?? flags.microbatches ?? 2 * devices;
  const memory = memoryOf(flags);
  const placement = base?.placement ?? linearPlacement(devices);
  const own = costsOf(flags, cluster, "the search", { devices, stages: placement.length });
  const tried = replicatedCosts(flags, cluster, own, placement);
  if (tried.length > 1) {
    throw new UserError("A search is for one place of the replicas: say with --neighbours ranks or replicas which");
  }
  const [{ costs, options }] = tried;
  const stop = new AbortController();
  // The first Ctrl-C ends the search and keeps the best so far; the next one ends the process as always.
  onNextInterrupt(() => stop.abort());
  let bar: ProgressLine | undefined;
  const result = await search({
    devices,
    placement,
    from: base,
    microbatches,
    costs,
    memory,
    cap: flags.cap,
    budget: flags.budget,
    signal: stop.signal,
    onProgress({ done, budget, best, lowerBound }) {
      const found = `best ${best.toPrecision(6)}, none below ${lowerBound.toPrecision(6)}, Ctrl-C keeps the best`;
      (bar ??= progress(budget, "candidates")).to(done, found);
    },
  }).finally(() => bar?.done());
  const rows = (base ? [base, result.schedule] : [result.schedule])
    .map((schedule) => withReplicated(priceOf(schedule, costs, memory), costs, options));
  await write(out, flags, rows, () => {
    sayLines(out, `${title(result.schedule)} (simulated)`, tableText(scheduleTable(rows)));
    sayLines(out, replicasText(rows[rows.length - 1]));
    sayLines(out, searchVerdict(result, stop.signal.aborted), criticalPathText(rows[rows.length - 1].simulation));
    sayLines(out, errorText(flags));
  });
}
