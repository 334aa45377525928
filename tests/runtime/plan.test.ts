/** What a pipeline makes of a schedule before it runs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { planOf } from "../../lib/runtime/plan.ts";
import type { Action } from "../../lib/schedules/schedule.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";

test("a schedule that was changed since the last step is looked at again", () => {
  const schedule = generate("gpipe", { devices: 2, microbatches: 2 });
  assert.equal(planOf(schedule, 2, [0, 1])[1][1].action, schedule.actions[1][3]);
  (schedule.actions[1] as Action[]).reverse();
  assert.throws(() => planOf(schedule, 2, [0, 1]), { name: "UserError", message: /needs the forward 1F0 first/ });
});
