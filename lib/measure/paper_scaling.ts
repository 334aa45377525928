/** The gain of a model of the 2BP paper by number of ranks: measured where that can be, else simulated from measured costs. */
import type { Mode } from "../gpu/devices.ts";
import { createModel } from "../models/registry.ts";
import { createPipeline } from "../runtime/pipeline.ts";
import { type Costs, stageCosts } from "../schedules/price/costs.ts";
import { simulate } from "../schedules/price/simulate.ts";
import type { MeasuredCosts, MeasuredStage } from "./costs.ts";
import type { PaperOptions } from "./paper_options.ts";
import type { PaperModelReport, PaperScalingRow } from "./paper_report.ts";
import { needOf, type PaperCase, paperCases, placeOf, predictPeaks, roomOf, stepWork, workOf } from "./paper_cases.ts";
import { paperRunOf } from "./paper_runs.ts";
import { fewestPairs, timeCases, type Times } from "./paper_times.ts";
import { closedForm } from "./scaling.ts";
import { isOfDevice } from "./throughput.ts";
import type { ThroughputReport } from "./throughput_report.ts";

/**
 * Gains of a model by number of ranks, `options.ranks`. What is known already of one of them is taken from there. The first of the
 * others is measured however long it takes, the rest where there is time and memory for them.
 */
export async function scalePaper(
  model: string,
  options: PaperOptions,
  known?: Pick<PaperModelReport, "devices" | "throughput" | "rate">,
): Promise<PaperScalingRow[]> {
  const { ranks, schedules, policies, ms, repeats = fewestPairs, onPhase } = options;
  const end = performance.now() + ms;
  const run = paperRunOf(model);
  const rows: PaperScalingRow[] = [];
  let last: Pick<Times, "throughput" | "rate"> | undefined;
  for (const [at, devices] of ranks.entries()) {
    onPhase?.(`${model}: ${devices} ranks`);
    if (known?.throughput && known.devices === devices) {
      last = { throughput: known.throughput, rate: known.rate! };
      rows.push(...measuredRows(last.throughput));
      continue;
    }
    const layers = createModel(model).layers.length;
    const set = devices > layers ? undefined : await options.open(devices);
    try {
      const place = set ? placeOf(set, run) : { software: false, subgroupSize: 0, precision: run.precision };
      const cases = await paperCases(model, run, { devices, schedules, policies }, place);
      const left = end - performance.now();
      const takes = (rounds: number) => last && set ? roundMs(model, cases, set.mode, last.rate) * rounds : 0;
      const room = set && roomOf(set, options.bytes);
      const reason = !set
        ? "layers"
        : needOf(await predictPeaks(model, run, cases, place), room!.shared) > room!.bytes
        ? "memory"
        : takes(1 + repeats) > left
        ? "time"
        : undefined;
      if (!reason) {
        try {
          const { optimizer } = run, { precision } = place, { seed, source, onStep } = options;
          const pipeline = createPipeline(set!, createModel(model), { optimizer, precision, seed });
          try {
            last = await timeCases(set!, pipeline, cases, {
              ...{ source: source(pipeline.model), steps: 0, after: 0, onStep, repeats: options.repeats },
              ms: left / (ranks.length - at),
            });
          } finally {
            pipeline.close();
          }
          rows.push(...measuredRows(last.throughput));
          continue;
        } catch (error) {
          if (!isOfDevice(error)) throw error;
        }
      }
      rows.push(...cases.map((each) => simulatedRow(each, reason ?? "memory", last?.throughput)));
    } finally {
      set?.close();
    }
  }
  return rows;
}

function measuredRows(reports: readonly ThroughputReport[]): PaperScalingRow[] {
  return reports.flatMap(({ devices, mode, samples, gains }) =>
    gains.map(({ schedule, gain, spread, pairs, predicted }) => ({
      ...{ devices, mode, schedule, samples, gain, spread, pairs, predicted },
      ...theory(schedule, devices),
    }))
  );
}

function theory(schedule: string, devices: number): Pick<PaperScalingRow, "closedForm"> {
  const form = closedForm(schedule, devices);
  return form ? { closedForm: form } : {};
}

/** Estimated time of one round of pairs. */
function roundMs(model: string, cases: readonly PaperCase[], mode: Mode, rate: number): number {
  const work = cases.reduce((sum, { base, splits: [split], samples }) => {
    const each = workOf(model, samples);
    return sum + stepWork(each, base, mode) + stepWork(each, split, mode);
  }, 0);
  return work / rate * 1000;
}

function simulatedRow(
  { base, splits: [split], samples }: PaperCase,
  reason: PaperScalingRow["reason"],
  reports: readonly ThroughputReport[] = [],
): PaperScalingRow {
  const devices = base.actions.length;
  const from = reports.find(({ costs }) => costs[base.name]);
  const costs = from && evenCosts(from.costs[base.name], devices, samples / from.samples);
  const gain = costs ? simulate(base, costs).makespan / simulate(split, costs).makespan : NaN;
  return { devices, mode: "simulated", schedule: base.name, samples, gain, ...theory(base.name, devices), reason };
}

/**
 * Costs of a model on another number of ranks than it was measured on: the measured work, spread evenly over the stages. A W
 * of a width that was not measured costs what lies between those that were, a wider one as much for each micro-batch as the widest.
 *
 * @param share Samples in a micro-batch over those that were measured.
 */
export function evenCosts({ stages, optimizer }: MeasuredCosts, devices: number, share = 1): Costs {
  const total = (of: (stage: MeasuredStage) => number) =>
    stages.reduce((sum, stage) => sum + of(stage), 0) * share / devices;
  const cost = {
    f: total(({ f }) => f),
    i: total(({ i }) => i),
    b: total(({ b }) => b),
    w: (width: number) => width * total((stage) => eachOfWidth(stage, width)),
  };
  const update = optimizer.reduce((sum, time) => sum + (time || 0), 0) / devices;
  return { ...stageCosts(Array(devices).fill(cost)), tail: () => update, tailTogether: true };
}

/** What a W of so many micro-batches takes for each of them. */
function eachOfWidth({ w }: MeasuredStage, width: number): number {
  const known = Object.entries(w).map(([each, time]) => [Number(each), time / Number(each)] as const)
    .sort(([a], [b]) => a - b);
  const above = known.findIndex(([each]) => each >= width);
  if (above < 0) return known[known.length - 1][1];
  const [to, high] = known[above], [from, low] = known[Math.max(0, above - 1)];
  return to === from ? high : low + (high - low) * (width - from) / (to - from);
}
