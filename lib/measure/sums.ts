/** What sums of gradients over replicas take: read from steps of real devices, measured for virtual ones. */
import type { Device } from "../gpu/device.ts";
import type { Interval } from "../gpu/timing.ts";
import { isTrained } from "../layers/parameter.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import type { SumTime } from "../runtime/replica_sums.ts";
import type { Costs } from "../schedules/price/costs.ts";
import { sizeOf } from "../tensor.ts";
import type { SumCosts } from "./costs.ts";
import { measureMessage } from "./overheads.ts";
import { median } from "./statistics.ts";

/** The intervals of each replica, of `ranks` ranks each. */
export function byReplica<Each>(all: readonly Each[], ranks: number): Each[][] {
  return Array.from({ length: all.length / ranks }, (_, at) => all.slice(at * ranks, (at + 1) * ranks));
}

/**
 * By stage how long its sum took in a step: with the replica that began it last, since the others have waited for that one. Where nothing
 * was summed, NaN.
 */
export function sumsOfStep(times: readonly (readonly SumTime[])[], stages: number): number[] {
  const all = times.flat();
  return Array.from({ length: stages }, (_, stage) => {
    const own = all.filter((each) => each.stage === stage).map(({ begin, end }) => end - begin);
    return own.length > 0 ? Math.min(...own) : NaN;
  });
}

/** Of several steps, stage by stage the median. */
export function medianSums(steps: readonly (readonly number[])[]): number[] {
  return (steps[0] ?? []).map((_, stage) => median(steps.map((each) => each[stage])));
}

/** The time in which a replica sends so many bytes to the others, in milliseconds. */
export type Exchange = (bytes: number) => number;

/**
 * What the sums of a pipeline take on devices that take turns on `device`: each of R replicas sends R - 1 pieces, of 1/R of a stage's
 * gradients each, and then the sum of its own to all others, or with a sharded optimizer the parameters that it has updated. Each
 * half is `exchange` of these bytes, by default as long as one message of them is measured at. What adding takes is left out: it reads what has just arrived.
 *
 * @param placement By stage its rank.
 * @param busyMs How long actions are, see {@link measureMessage}.
 */
export async function measureSums(
  device: Device,
  { parts, replicas, shardOptimizer }: Pick<Pipeline, "parts" | "replicas" | "shardOptimizer">,
  placement: readonly number[],
  busyMs: readonly number[],
  exchange?: Exchange,
): Promise<SumCosts> {
  const known = new Map<number, number>(), halves: number[] = [];
  for (const layers of parts) {
    const trained = layers.flatMap(({ parameters }) => parameters).filter(isTrained);
    const values = trained.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
    const bytes = Math.ceil(4 * values * (replicas - 1) / replicas);
    if (bytes > 0 && !known.has(bytes)) {
      known.set(bytes, exchange?.(bytes) ?? await measureMessage(device, bytes, median(busyMs)));
    }
    halves.push(known.get(bytes) ?? 0);
  }
  if (!shardOptimizer) return { sum: halves.map((half) => 2 * half) };
  const ranks = Math.max(...placement) + 1;
  const gather = Array.from(
    { length: ranks },
    (_, rank) => placement.reduce((sum, own, stage) => own === rank ? sum + halves[stage] : sum, 0),
  );
  return { sum: halves, gather };
}

/** The costs of the replica whose step, of its own device times, is the longest: the others wait for it. */
export function slowestOf(
  intervals: readonly (readonly Interval[])[],
  ranks: number,
  costsOf: (intervals: readonly (readonly Interval[])[]) => Costs,
  makespanOf: (costs: Costs) => number,
): { readonly costs: Costs; readonly makespan: number } {
  return byReplica(intervals, ranks)
    .map((own) => costsOf(own))
    .map((costs) => ({ costs, makespan: makespanOf(costs) }))
    .reduce((most, each) => each.makespan > most.makespan ? each : most);
}
