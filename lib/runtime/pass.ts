/** The passes that a rank records: one for each of its actions, and those of the end of a step. */
import type { Rank } from "./run.ts";

/**
 * Records pass `index` of the rank's step, by which its time is found again. `prepare` comes first, with everything that is
 * uploaded: an upload submits what is recorded, and would cut an open pass, and its time, in two. What it returns then
 * records the kernels. Passes are opened nowhere else.
 */
export function recordPass<Prepared extends { record(): void }>(
  { device, timer }: Rank,
  index: number,
  prepare: () => Prepared,
): Prepared {
  const prepared = prepare();
  device.beginPass(timer?.slot(index));
  prepared.record();
  return prepared;
}
