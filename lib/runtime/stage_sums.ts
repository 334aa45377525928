/** The sums over replicas that a step makes beside a rank's actions, stage by stage. */
import type { Program } from "../schedules/program.ts";
import { beginSums, type SumTime } from "./replica_sums.ts";
import type { Rank, Run } from "./run.ts";

/** By the action that the sum of a stage of the rank waits for, the stage. */
export function endsOf({ sum, waits, from }: Program, { stages }: Rank): ReadonlyMap<number, number> {
  return new Map(
    [...stages.keys()].filter((stage) => sum[stage] >= 0).map((stage) => [from[waits[sum[stage]]], stage]),
  );
}

/** Begins the sum of a stage's gradients, whose last action is submitted. */
export function beginStageSum({ rank, sums: all, start }: Run, stage: number): void {
  const begin = performance.now() - start;
  const sums = beginSums(rank, rank.shares.get(stage)!);
  const timed = async () => {
    await sums.ended();
    return { stage, begin, end: performance.now() - start };
  };
  const time = rank.device.gpu.info.dry ? undefined : timed();
  time?.catch(() => {}); // the rank may fail before it asks
  all.push({ sums, ended: () => time ?? timed() });
}

/** Waits for all sums of the rank, and gives their memory back. */
export async function endStageSums({ sums }: Run): Promise<readonly SumTime[]> {
  const times = await Promise.all(sums.map((each) => each.ended()));
  sums.forEach((each) => each.sums.release());
  return times;
}
