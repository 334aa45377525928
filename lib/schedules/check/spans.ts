/** What a drawing or a memory curve is made of: a schedule, and when its actions ran. */
import { UserError } from "../../errors.ts";
import { formatAction } from "../schedule.ts";
import type { Span } from "../price/simulate.ts";
import type { Program } from "../program.ts";

/**
 * Checks that spans are those of a schedule: every action once, each rank's in the order of its list, at finite times.
 *
 * @throws {UserError} Where the spans are of another one.
 */
export function checkSpans({ schedule: { actions, name } }: Program, spans: readonly Span[]): void {
  const seen = new Int32Array(actions.length);
  for (const { rank, action, start, end } of spans) {
    const expected = actions[rank]?.[seen[rank]++];
    if (!expected || (expected !== action && formatAction(expected) !== formatAction(action))) {
      const instead = expected
        ? `and the schedule runs ${formatAction(expected)} there`
        : "and the schedule runs no more there";
      throw new UserError(
        `The times are not those of ${name}: action ${seen[rank] - 1} of rank ${rank} is ${
          formatAction(action)
        }, ${instead}`,
      );
    }
    if (!Number.isFinite(start) || !Number.isFinite(end)) {
      throw new UserError(
        `Rank ${rank} runs ${formatAction(action)} from ${start} to ${end}; times must be finite numbers`,
      );
    }
  }
  const rank = actions.findIndex((list, at) => seen[at] < list.length);
  if (rank < 0) return;
  throw new UserError(
    `The times are not those of ${name}: ${formatAction(actions[rank][seen[rank]])} of rank ${rank} has none`,
  );
}
