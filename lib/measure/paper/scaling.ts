/** The gain of a model of the 2BP paper by number of ranks: measured where that can be, else simulated from measured costs. */
import type { Mode } from "../../gpu/devices.ts";
import { createModel } from "../../models/registry.ts";
import { type Costs, stageCosts } from "../../schedules/price/costs.ts";
import { simulate } from "../../schedules/price/simulate.ts";
import { weightTime } from "../../schedules/price/weight_time.ts";
import type { MeasuredCosts, MeasuredStage } from "../costs.ts";
import { type PaperCase, paperCases, stepWork, workOf } from "./cases.ts";
import { needOf, roomOf } from "./memory.ts";
import type { PaperOptions } from "./options.ts";
import type { PaperModelReport, PaperScalingRow } from "./report.ts";
import { paperRunOf } from "./runs.ts";
import { paperSettings, pipelineOf } from "./settings.ts";
import { fewestPairs, timeCases, type Times } from "./times.ts";
import { closedForm } from "../scaling.ts";
import { isOfDevice } from "../throughput.ts";
import type { ThroughputReport } from "../throughput_report.ts";

/**
 * Gains of a model by number of ranks, `options.ranks`. What is known already of one of them is taken from there; the others are
 * measured where there is time and memory for them, and else simulated from the costs that were measured last. Where nothing is known,
 * the first is measured however long it takes.
 */
export async function scalePaper(
  model: string,
  options: PaperOptions,
  known?: Pick<PaperModelReport, "devices" | "throughput" | "rate">,
): Promise<PaperScalingRow[]> {
  const { ranks, ms, onPhase } = options;
  const end = performance.now() + ms;
  const before = known?.throughput ? { throughput: known.throughput, rate: known.rate! } : undefined;
  const rows: PaperScalingRow[] = [];
  let last: Times | undefined = before;
  for (const [at, devices] of ranks.entries()) {
    onPhase?.(`${model}: ${devices} ranks`);
    const found = before && devices === known!.devices
      ? before
      : await timesOf(model, { ...options, devices }, end - performance.now(), ranks.length - at, last?.rate);
    if (typeof found === "string") rows.push(...await simulatedRows(model, { ...options, devices }, found, last));
    else rows.push(...measuredRows((last = found).throughput));
  }
  return rows;
}

/** Times of pairs, or why there are none. */
async function timesOf(
  model: string,
  options: PaperOptions,
  left: number,
  others: number,
  rate?: number,
): Promise<Times | PaperScalingRow["reason"] & string> {
  const { devices, open, source, seed, repeats, onStep } = options;
  if (devices > createModel(model).layers.length) return "layers";
  const set = await open(devices);
  try {
    const setting = await paperSettings(set, options)(model), { cases, peaks } = setting;
    const { shared, bytes } = roomOf(set, options.bytes);
    if (needOf(peaks, shared) > bytes) return "memory";
    if (rate && roundMs(model, cases, set.mode, rate) * (1 + (repeats ?? fewestPairs)) > left) return "time";
    const pipeline = pipelineOf(model, setting, seed)(set);
    try {
      const ms = left / others;
      return await timeCases(set, pipeline, cases, {
        ...{ source: source(pipeline.model), ms, steps: 0, repeats, after: 0, onStep },
      });
    } finally {
      pipeline.close();
    }
  } catch (error) {
    if (isOfDevice(error)) return "memory";
    throw error;
  } finally {
    set.close();
  }
}

function measuredRows(reports: readonly ThroughputReport[]): PaperScalingRow[] {
  return reports.flatMap(({ devices, mode, samples, gains }) =>
    gains.map(({ schedule, gain, spread, pairs, predicted, predictedWithin }) => ({
      ...{ devices, mode, schedule, samples, gain, spread, pairs, predicted },
      ...(predictedWithin === undefined ? {} : { predictedWithin }),
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

/** Simulated from the costs that were measured last; NaN where there are none. */
async function simulatedRows(
  model: string,
  options: PaperOptions,
  reason: PaperScalingRow["reason"],
  last?: Times,
): Promise<PaperScalingRow[]> {
  const { devices } = options, run = paperRunOf(model);
  const cases = await paperCases(model, run, { ...options, policies: options.policies.slice(0, 1) }, {
    precision: run.precision,
  });
  return cases.map(({ base, splits: [split], samples }) => {
    const from = last?.throughput.find(({ costs }) => costs[base.name]);
    const costs = from && evenCosts(from.costs[base.name], devices, samples / from.samples);
    const gain = costs ? simulate(base, costs).makespan / simulate(split, costs).makespan : NaN;
    return { devices, mode: "simulated", schedule: base.name, samples, gain, ...theory(base.name, devices), reason };
  });
}

/**
 * Costs of a model on another number of ranks than it was measured on: the measured work, spread evenly over the stages, a W of
 * a width that was not measured as {@link weightTime} says.
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
    w: (width: number) => total(({ w }) => weightTime(w, width)),
  };
  const update = optimizer.reduce((sum, time) => sum + (time || 0), 0) / devices;
  return { ...stageCosts(Array(devices).fill(cost)), tail: () => update, tailTogether: true };
}
