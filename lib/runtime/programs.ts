/** The programs of the schedules that a pipeline runs. */
import { UserError } from "../errors.ts";
import { lower, type Program, type StepEnd } from "../schedules/program.ts";
import { checkPlacement } from "../schedules/check/sizes.ts";
import { type Action, isAction, type Schedule } from "../schedules/schedule.ts";

/**
 * Lowers schedules for a pipeline whose stages are placed so on so many ranks, and whose steps end so. A schedule is lowered
 * once: it is plain data, which its owner may change at any time, even while a step is under way, so its program has a copy of
 * it, and is good as long as the two are the same. Comparing them takes microseconds.
 *
 * @param transform What is made of a schedule before it is lowered; by default it is lowered as it is.
 * @param replicas How many copies of the pipeline there are, for messages.
 * @throws {UserError} What `validate` finds, or a schedule that does not fit the pipeline.
 */
export function createPrograms(
  placement: readonly number[],
  devices: number,
  end: StepEnd,
  transform: (schedule: Schedule) => Schedule = (schedule) => schedule,
  replicas = 1,
): (schedule: Schedule) => Program {
  const programs = new WeakMap<Schedule, { copy: Schedule; program: Program }>();
  return (schedule) => {
    checkPlacement(schedule);
    const known = programs.get(schedule);
    if (known && isUnchanged(schedule, known.copy)) return known.program;
    const copy = copyOf(schedule), program = lower(transform(copy), end);
    expectFitting(program, placement, devices, replicas);
    programs.set(schedule, { copy, program });
    return program;
  };
}

function expectFitting(
  { schedule, ...sizes }: Program,
  placement: readonly number[],
  devices: number,
  replicas: number,
): void {
  const stages = placement.length;
  if (sizes.devices !== devices || sizes.stages !== stages) {
    throw new UserError(
      `Schedule ${schedule.name} is for ${sizes.stages} stages on ${sizes.devices} ranks, ` +
        `the pipeline has ${stages} on ${devices}${
          replicas > 1 ? ` in each of ${replicas} replicas: a schedule is of the ranks of one` : ""
        }`,
    );
  }
  if (!isSame(schedule.placement, placement)) {
    throw new UserError(
      `Schedule ${schedule.name} has its stages on ranks ${schedule.placement.join()}, the pipeline on ` +
        `${placement.join()}: make the pipeline with the schedule's placement`,
    );
  }
}

/** The copy that is lowered. What is no action stays what it is, for `lower` to find. */
function copyOf(schedule: Schedule): Schedule {
  const actions = schedule.actions.map((list) =>
    list.map((action) => isAction(action) ? copyOfAction(action) : action)
  );
  return { ...schedule, placement: [...schedule.placement], actions };
}

function copyOfAction({ kind, stage, microbatches }: Action): Action {
  return { kind, stage, microbatches: [...microbatches] };
}

/** Whether a schedule, which may have become anything, is as it was when `copy` was made of it. */
function isUnchanged(schedule: Schedule, copy: Schedule): boolean {
  return schedule.name === copy.name && isSame(schedule.placement, copy.placement) &&
    isSame(schedule.actions, copy.actions, (list, known) => isSame(list, known, isSameAction));
}

function isSameAction(action: Action, known: Action): boolean {
  return action?.kind === known.kind && action.stage === known.stage && isSame(action.microbatches, known.microbatches);
}

function isSame<Item>(
  list: readonly Item[],
  known: readonly Item[],
  isEqual = Object.is as (a: Item, b: Item) => boolean,
) {
  return Array.isArray(list) && list.length === known.length && known.every((item, at) => isEqual(list[at], item));
}
