/** The sums over replicas that a step makes beside a rank's actions, stage by stage. */
import type { Program } from "../schedules/program.ts";
import { beginSums, type SumTime } from "./replica_sums.ts";
import type { Rank, Run } from "./run.ts";

/** By the action that ends the last W or B of a stage, the stage, whose gradients are complete then: of those that the rank shares with replicas. */
export function endsOf({ group, microbatches }: Program, { shares }: Rank): ReadonlyMap<number, number> {
  return new Map(
    [...shares].filter(([, { length }]) => length > 0).map(([stage]) => {
      let last = 0;
      for (let cell = stage * microbatches; cell < (stage + 1) * microbatches; cell++) {
        last = Math.max(last, group[cell]);
      }
      return [last, stage];
    }),
  );
}

/** Begins the sum of a stage's gradients, whose last action is submitted. */
export function beginStageSum({ rank, sums: all, start }: Run, stage: number): void {
  const begin = performance.now() - start;
  const sums = beginSums(rank, rank.shares.get(stage)!);
  const time = sums.over.then(() => ({ stage, begin, end: performance.now() - start }));
  time.catch(() => {}); // the rank may fail before it asks
  all.push({ sums, time });
}

/** Waits for all sums of the rank, and gives their memory back. */
export async function endStageSums({ sums }: Run): Promise<readonly SumTime[]> {
  const times = await Promise.all(sums.map(({ time }) => time));
  sums.forEach((each) => each.sums.release());
  return times;
}
