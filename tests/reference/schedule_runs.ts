/** Whether a schedule runs to its end, found out by playing it. */
import type { Action, Schedule } from "../../lib/schedules/schedule.ts";

/**
 * Plays the lists round-robin, one action a turn, until nobody can move: right is a schedule of which nothing is left and that has
 * made every activation, gradient and weight gradient. Whatever may not run where it stands is never played.
 */
export function runsToItsEnd(schedule: Schedule): boolean {
  const { placement, actions } = schedule;
  const stages = placement.length;
  const named = actions.flat().flatMap(({ microbatches }) => [...microbatches]).filter(Number.isInteger);
  const microbatches = Math.max(0, ...named) + 1;
  const isIndex = (value: number, count: number) => Number.isInteger(value) && value >= 0 && value < count;
  if (stages === 0 || !placement.every((rank) => isIndex(rank, actions.length))) return false;

  const made = new Set<string>();
  const has = (what: string, stage: number, microbatch: number) =>
    stage < 0 || stage >= stages || made.has(`${what} ${stage} ${microbatch}`);
  const play = (rank: number, { kind, stage, microbatches: carried }: Action): boolean => {
    if (!isIndex(stage, stages) || placement[stage] !== rank) return false;
    if (carried.length === 0 || !carried.every((microbatch) => isIndex(microbatch, microbatches))) return false;
    if ((kind !== "W" && carried.length > 1) || new Set(carried).size < carried.length) return false;
    const makes =
      ({ F: ["activation"], I: ["gradient"], W: ["weight"], B: ["gradient", "weight"], R: ["again"] })[kind];
    if (!makes || carried.some((microbatch) => makes.some((what) => has(what, stage, microbatch)))) return false;
    const isReady = carried.every((microbatch) =>
      kind === "F"
        ? has("activation", stage - 1, microbatch)
        : kind === "W"
        ? has("gradient", stage, microbatch)
        : kind === "R"
        ? has("activation", stage, microbatch) && !has("gradient", stage, microbatch)
        : has("activation", stage, microbatch) && has("gradient", stage + 1, microbatch)
    );
    if (!isReady) return false;
    for (const microbatch of carried) for (const what of makes) made.add(`${what} ${stage} ${microbatch}`);
    return true;
  };
  const left = actions.map((list) => [...list]);
  for (let moved = true; moved;) {
    moved = false;
    for (const [rank, list] of left.entries()) {
      if (list.length === 0 || !play(rank, list[0])) continue;
      list.shift();
      moved = true;
    }
  }
  const needed = [...made].filter((what) => !what.startsWith("again")); // an R need not be
  return left.every((list) => list.length === 0) && needed.length === 3 * stages * microbatches;
}
