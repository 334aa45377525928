/** Costs for the transforms and the simulator, of what is about to run: measured in a few of its own steps. */
import { UserError } from "../errors.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { callback, expectFields, expectValue, having, optional, positive, type Rules } from "../rules.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { countDevices } from "../runtime/world.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { type Costs, withHostOverhead } from "../schedules/price/costs.ts";
import { weightTime } from "../schedules/price/weight_time.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { pairOf } from "../schedules/transforms/pair.ts";
import type { BatchSource } from "../train/data.ts";
import { createCostCollector, hostPerAction, simulatorCosts, type Transfer, updatesAfter } from "./costs.ts";
import { measureLinks } from "./overheads.ts";
import { median } from "./statistics.ts";
import { byReplica, type Exchange, measureSums, medianSums, sumsOfStep } from "./sums.ts";

/** How to measure costs. */
export interface StepCostsOptions {
  /** Where batches come from. */
  readonly source: BatchSource;
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** Pairs of steps, after one that is not counted; 5 by default. */
  readonly repeats?: number;
  /** Most micro-batches of the W that are to be priced, 1 by default: those of this width are measured too. */
  readonly width?: number;
  /** Time of a message in milliseconds; by default on virtual devices what it is measured at, on real ones nothing. */
  readonly transfer?: Transfer;
  /** As in `MeasurementOptions`. */
  readonly exchange?: Exchange;
}

const rules: Rules<StepCostsOptions> = {
  source: having("next"),
  samples: positive,
  repeats: optional(positive),
  width: optional(positive),
  transfer: optional(callback),
  exchange: optional(callback),
};

/**
 * What the actions of a schedule's stages take on these devices, in milliseconds: F, B, and I and W of their own, medians of a few
 * training steps as it is and as many with 2BP, which take turns; with messages, sums over replicas and, on virtual devices, the
 * host's time for each action. It is what policy `select` chooses by: whether a B costs less than its I and W depends on model, device and driver.
 *
 * ```ts
 * import { adamw, createModel, createPipeline, generate, openDevices, textSource, twoStage } from "twobp";
 * import { measureStepCosts } from "twobp/measure";
 *
 * const set = await openDevices(2, { virtual: true });
 * const base = generate("1f1b-2", { devices: 2 });
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw(), placement: base.placement });
 * const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * const costs = await measureStepCosts(set, pipeline, base, { source, samples: 1, repeats: 2 });
 * console.log(twoStage(base, { policy: "select", costs }).policy); // select
 * pipeline.close();
 * set.close();
 * ```
 *
 * @param pipeline Trains for the steps; its placement is the schedule's.
 * @throws {UserError} On an option out of its range, what `pipeline.step` says of the schedule, and on devices without timestamps.
 */
export async function measureStepCosts(
  set: DeviceSet,
  pipeline: Pipeline,
  schedule: Schedule,
  options: StepCostsOptions,
): Promise<Costs> {
  expectValue("measureStepCosts: pipeline", pipeline, having("step"));
  expectFields("measureStepCosts", options, rules);
  const { source, samples, repeats = 5, width = 1 } = options;
  const { base, split } = pairOf(schedule, { policy: "end" });
  const wide = width > 1 && split !== schedule ? [pairOf(schedule, { policy: "end", width }).split] : [];
  const { replicas, parts: { length: stages } } = pipeline;
  const ranks = countDevices(set) / replicas, after = updatesAfter(pipeline, ranks);
  const collector = createCostCollector(stages, ranks, after);
  const host: number[] = [], lengths: number[] = [], summed: number[][] = [];
  for (let round = 0; round <= repeats; round++) {
    for (const each of [base, split, ...wide]) {
      const batch = await source.next(samples * sizesOf(each).microbatches * replicas);
      const { intervals, wallMs, sums } = await pipeline.step(each, batch);
      if (!intervals) {
        throw new UserError(
          "What actions take is read from device timestamps, which these devices do not have: give costs of your own",
        );
      }
      if (round === 0) continue; // kernels are compiled and buffers made
      for (const own of byReplica(intervals, ranks)) collector.add(each, own);
      if (sums) summed.push(sumsOfStep(sums, stages));
      host.push(hostPerAction(intervals, wallMs));
      lengths.push(...intervals.flat().map(({ start, end }) => end - start));
    }
  }
  const isVirtual = set.mode === "virtual";
  const transfer = options.transfer ??
    (isVirtual ? await measureLinks(set.devices[0], pipeline, base, samples, lengths) : undefined);
  const sums = replicas === 1
    ? undefined
    : isVirtual
    ? await measureSums(set.devices[0], pipeline, base.placement, lengths, options.exchange)
    : { sum: medianSums(summed) };
  const measured = { ...collector.costs(), ...sums ? { sums } : {} };
  const costs = simulatorCosts(measured, { transfer });
  const known = new Set(Object.keys(measured.stages[0].w).map(Number));
  const priced: Costs = {
    ...costs,
    duration: (action, rank, index) =>
      action.kind !== "W" || known.has(action.microbatches.length)
        ? costs.duration(action, rank, index)
        : weightTime(measured.stages[action.stage].w, action.microbatches.length),
  };
  return isVirtual ? withHostOverhead(priced, median(host)) : priced;
}
