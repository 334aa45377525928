/** Plans as tables, sentences and JSON. */
import { formatBytes } from "../bytes.ts";
import { kindInFull } from "../gpu/kind.ts";
import { countParameters, type Model } from "../models/model.ts";
import type { PlanOptions, TrainingPlan } from "../planning/options.ts";
import { formatAction } from "../schedules/schedule.ts";
import { errorBar } from "../measure/error_bar.ts";
import type { Table } from "./html.ts";
import { barText, keptText } from "./prediction_errors.ts";
import { variantOf } from "./variant.ts";

/** One line a rank. */
export function planTable({ schedule, parts, recompute, sums, peak }: TrainingPlan, budget: number): Table {
  return {
    columns: ["rank", "stages", "layers", "recompute", "sums in", "peak", "of the budget"],
    rows: peak.map((bytes, rank) => {
      const stages = schedule.placement.flatMap((at, stage) => at === rank ? [stage] : []);
      return [
        `${rank}`,
        stages.join(" "),
        stages.map((stage) => parts[stage].length).join(" + "),
        [...new Set(stages.map((stage) => recompute[stage]))].join(" "),
        [...new Set(stages.map((stage) => sums[stage].toUpperCase()))].join(" "),
        formatBytes(bytes),
        `${(100 * bytes / budget).toFixed(1)} %`,
      ];
    }),
  };
}

/** What was chosen, and what the budget cost. */
export function gaveUp({ schedule, recompute, makespan, unlimited, times }: TrainingPlan): string {
  const ratio = makespan > unlimited.makespan ? makespan / unlimited.makespan : 1; // both may be 0
  const slower = 100 * (ratio - 1), within = countedBar(100 * ratio, times);
  const chosen = `Chosen: ${variantOf(schedule)}.`;
  const fastest = `${variantOf(unlimited.schedule)}, which needs ${formatBytes(Math.max(...unlimited.peak))}`;
  if (slower < 0.05) return `${chosen} Nothing given up: without a budget no schedule is faster (${fastest}).`;
  const recomputing = recompute.filter((each) => each !== "none").length;
  return `${chosen} Given up: ${barText(slower, within, 1)} % of time against ${fastest}` +
    `${recomputing > 0 ? `; ${recomputing} of ${recompute.length} stages recompute` : ""}. Times are simulated.`;
}

/** What the cut gains over equal work in the stages, in a sentence; empty where that is the cut. */
export function planCut({ makespan, equal, times }: TrainingPlan): string {
  const shorter = equal.makespan > 0 ? 100 * (1 - makespan / equal.makespan) : 0;
  if (shorter < 0.05) return "";
  return `Layers lie so that the step is short: ${shorter.toFixed(1)} % shorter than with equal work in the stages, ` +
    `with which plain 1F1B takes ${planRatio(equal.plain / makespan, times)} times as long.`;
}

/** Where replicas are, and what their sums add to the step, in a sentence; empty where there is one. */
export function planReplicas({ replicas, neighbours, exposedSums, makespan, plain }: TrainingPlan): string {
  if (replicas === 1) return "";
  const beside = neighbours === undefined
    ? ""
    : `, neighbours on a host are ${neighbours === "ranks" ? "ranks of a replica" : "replicas of a rank"}`;
  return `${replicas} replicas${beside}: their sums make the step ${
    (100 * exposedSums / makespan).toFixed(1)
  } % of itself longer. ` +
    `Plain 1F1B with its sums after it takes ${(plain / makespan).toFixed(3)} times as long.`;
}

/** A ratio of steps, with how far it may be off where it is of counted work. */
function planRatio(ratio: number, times: TrainingPlan["times"]): string {
  return barText(ratio, countedBar(ratio, times));
}

/** How far a ratio of steps may be off: nothing is known of the times of others. */
function countedBar(ratio: number, times: TrainingPlan["times"]): number | undefined {
  return times === "counted" ? errorBar(ratio, "counted") : undefined;
}

/** How far the times of a plan may be off, in a sentence. */
export function planErrors({ times }: TrainingPlan): string {
  if (times === "cluster") {
    return `How far these times may be off is not known: they are of the cluster's file, and ${keptText()}.`;
  }
  const within = errorBar(100, "counted");
  return within === undefined
    ? `How far counted work is off is not known: ${keptText()}.`
    : `Times are counted work: steps in those of plain 1F1B may be ${
      within.toFixed(0)
    } % off (95 of 100 kept cases; ${keptText()}). ` +
      "Of GPUs nothing is known, and nothing of messages and replicas.";
}

/** What a step takes with the times of a cluster file, and what was not tried for want of times. */
export function clusterLines({ makespan, leftOut }: TrainingPlan, file: string): string[] {
  const reasons = new Map<string, string[]>();
  for (const { name, reason } of leftOut) reasons.set(reason, [...reasons.get(reason) ?? [], name]);
  return [
    `A step takes ${Number(makespan.toPrecision(6))} ms with the times of ${file}.`,
    ...[...reasons].map(([reason, names]) => `Left out: ${names.join(", ")} (${reason}).`),
  ];
}

/** The project's JSON of a plan, version 1; `file` is the name of the cluster's, where there is one. */
export function planJson(
  model: Model,
  options: PlanOptions,
  result: TrainingPlan,
  file?: string,
): Record<string, unknown> {
  const { devices, microbatches, samples = 1, budget, precision = "f32", apart = false } = options;
  const { schedule, parts, recompute, sums, makespan, peak, unlimited, leftOut } = result;
  const { replicas, neighbours, exposedSums, plain, equal } = result, { hosts = 1, shardOptimizer = false } = options;
  return {
    schema: 1,
    mode: "predicted",
    kind: kindInFull(options).kind,
    model: { name: model.name, parameters: countParameters(model), ...model.configuration },
    devices,
    microbatches,
    samples,
    precision,
    budget,
    ...apart && { apart },
    ...file !== undefined && { cluster: file, leftOut },
    ...(replicas > 1 || hosts > 1) && {
      replicated: { replicas, hosts, neighbours: neighbours ?? null, shardOptimizer, exposedSums },
    },
    plain,
    equal: { schedule: variantOf(equal.schedule), makespan: equal.makespan, plain: equal.plain },
    schedule: variantOf(schedule),
    placement: schedule.placement,
    layers: parts.map((layers) => layers.length),
    recompute,
    sums,
    makespan,
    peak,
    errorBar: result.times === "counted" ? { ratio: errorBar(1, "counted") ?? null } : null,
    unlimited: { schedule: variantOf(unlimited.schedule), makespan: unlimited.makespan, peak: unlimited.peak },
    actions: schedule.actions.map((list) => list.map(formatAction)),
  };
}
