import { sizesOf } from "../check/sizes.ts";
import { oneFOneB } from "../generators/one_f_one_b.ts";
import { type Costs, durationOf, sumOf } from "../price/costs.ts";
import { priced, timesOf } from "../price/simulate.ts";
import { actionMaker, type Schedule } from "../schedule.ts";

/**
 * How long a step takes by plain 1F1B without 2BP, each rank's gradients summed over replicas after its last action: what a schedule
 * with early sums is compared with. All stages of a rank are one there, which takes as long as they do together.
 *
 * @param costs Of the schedule.
 * @throws {UserError} What `simulate()` says of the schedule and its costs.
 */
export function plainMakespan(schedule: Schedule, costs: Costs): number {
  priced(schedule, "plainMakespan", costs);
  const { devices, microbatches } = sizesOf(schedule), { placement } = schedule;
  const make = actionMaker(microbatches);
  const own = Array.from(
    { length: devices },
    (_, rank) => placement.flatMap((each, stage) => each === rank ? [stage] : []),
  );
  const known = own.map((stages, rank) => {
    const together = (kind: "F" | "B") =>
      stages.reduce((time, stage) => time + durationOf(costs, make(kind, stage, 0), rank, 0), 0);
    const sum = stages.reduce((time, stage) => time + sumOf(costs, stage, rank), 0);
    return { F: together("F"), B: together("B"), sum };
  });
  const joined: Costs = {
    ...costs,
    duration: ({ kind }, rank) => known[rank][kind as "F"],
    ...costs.sum && { sum: (_: number, rank: number) => known[rank].sum },
  };
  return timesOf(priced(oneFOneB(devices, microbatches), "plainMakespan", joined), joined).makespan;
}
