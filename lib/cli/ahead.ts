/** `--recompute-ahead`: schedules that recompute while a gradient is on its way. */
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { formatRecompute, type RecomputePolicy, stagesAhead, withRecompute } from "../runtime/recompute.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { recomputeAhead } from "../schedules/transforms/recompute_ahead.ts";

/**
 * The schedule with an R before each I and B of those of its stages that recompute in them.
 *
 * @param parts The layers of each stage, as they are without recomputation.
 * @throws {UserError} Where none does, and what `recomputeAhead()` says of the schedule.
 */
export function withAhead(
  schedule: Schedule,
  parts: readonly (readonly Layer[])[],
  recompute: RecomputePolicy,
): Schedule {
  const stages = stagesAhead(withRecompute(parts, recompute));
  if (stages.length > 0) return recomputeAhead(schedule, stages);
  throw new UserError(
    `--recompute-ahead runs ahead what a backward recomputes, and --recompute ${
      formatRecompute(recompute)
    } leaves it ` +
      "nothing to recompute: add --recompute activations or both",
  );
}
