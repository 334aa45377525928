import { formatAction, type Schedule } from "../schedule.ts";
import { sourceOf } from "./walk.ts";

/**
 * Explains why a schedule whose actions are all there cannot run to its end: follows who waits for whom until a rank
 * comes round again.
 *
 * @param position Where each rank is stuck, as `walk()` returns it.
 */
export function explainDeadlock(schedule: Schedule, position: ArrayLike<number>): string {
  const { actions, placement, stages } = schedule;
  const seen: number[] = [];
  let rank = actions.findIndex((list, r) => position[r] < list.length);
  while (!seen.includes(rank)) {
    seen.push(rank);
    rank = placement[sourceOf(actions[rank][position[rank]], stages)!.stage];
  }
  const cycle = seen.slice(seen.indexOf(rank));
  const here = (r: number) => `its action ${position[r]} (${formatAction(actions[r][position[r]])})`;
  const links = cycle.map((r) => {
    const { kind, stage, microbatch } = sourceOf(actions[r][position[r]], stages)!;
    const what = kind === "F" ? "activation" : "gradient";
    const other = placement[stage];
    return `device ${r} waits at ${here(r)} for the ${what} of micro-batch ${microbatch} from stage ${stage}, ` +
      `which device ${other} makes only after ${here(other)}`;
  });
  return `Deadlock: ${links.join("; ")}`;
}
