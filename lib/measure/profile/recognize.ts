/** Which schedule of the zoo, with or without 2BP, a list of actions is. */
import { UserError } from "../../errors.ts";
import { sizesOf } from "../../schedules/check/sizes.ts";
import { generate } from "../../schedules/generators/generate.ts";
import { zoo, type ZooEntry } from "../../schedules/generators/zoo.ts";
import { formatAction, type PolicyText, type Schedule } from "../../schedules/schedule.ts";
import { twoStage } from "../../schedules/transforms/two_stage.ts";

const policies: readonly PolicyText[] = ["fill", "end", "mid", "every:1", "every:2", "paper"];

/** More actions than this are not compared. */
const mostActions = 20_000;

/** The same schedule under the name of the zoo's that has the same actions in the same order, and its policy; or as it is. */
export function nameSchedule(schedule: Schedule): Schedule {
  const { devices, stages, microbatches, split } = sizesOf(schedule);
  const text = textOf(schedule);
  if (schedule.actions.reduce((sum, { length }) => sum + length, 0) > mostActions) return schedule;
  // With other numbers than the usual one, several names may have the same actions.
  const isUsual = ({ name }: ZooEntry) =>
    orNothing(() => sizesOf(generate(name, { devices })).microbatches) === microbatches;
  for (const entry of [...zoo.filter(isUsual), ...zoo.filter((each) => !isUsual(each))]) {
    const chunks = stages / devices;
    const base = orNothing(() =>
      generate(entry.name, { devices, microbatches, ...(entry.isChunked ? { chunks } : {}) })
    );
    if (!base || base.placement.join() !== schedule.placement.join()) continue;
    if (textOf(base) === text) return { ...schedule, name: base.name };
    if (!split || sizesOf(base).split) continue;
    for (const policy of policies) {
      const made = orNothing(() => twoStage(base, { policy }));
      if (made && textOf(made) === text) return { ...schedule, name: base.name, policy };
    }
  }
  return schedule;
}

const textOf = ({ actions }: Schedule) => actions.map((list) => list.map(formatAction).join()).join("\n");

/** Not every schedule is defined for all sizes. */
function orNothing<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}
