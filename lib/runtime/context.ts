/** What the steps of a pipeline work on, and what they leave behind. */
import { DeviceError } from "../gpu/device_error.ts";
import type { Layer } from "../layers/layer.ts";
import type { Model } from "../models/model.ts";
import type { Program, StepEnd } from "../schedules/program.ts";
import type { Schedule } from "../schedules/schedule.ts";
import type { LossScale } from "../train/loss_scale.ts";
import type { Rank } from "./run.ts";
import { nameOf, type World } from "./world.ts";

/** What steps work on; made by `createPipeline`. */
export interface Context {
  readonly model: Model;
  /** The layers of each stage as one. */
  readonly stages: readonly Layer[];
  /** All peers. */
  readonly world: World;
  /** How many ranks the pipeline has, in each replica. */
  readonly size: number;
  /** Those that are in this process, by their peers. */
  readonly ranks: readonly Rank[];
  /** How steps end, beyond what their schedules say. */
  readonly end: StepEnd;
  /** The program of a schedule, see `createPrograms`. */
  readonly programOf: (schedule: Schedule) => Program;
  /** The program of its forward passes alone. */
  readonly forwardProgramOf: (schedule: Schedule) => Program;
  /** One forward through all stages. */
  readonly forward: Schedule;
  /** The optimizer's, of parameters in no group. */
  readonly learningRate: number;
  /** In mixed precision; none in f32. */
  readonly lossScale?: LossScale;
  readonly condition: Condition;
}

/** What steps leave behind for those after them. */
export interface Condition {
  /** What the gradients are: zero, those of steps without an update, or such a sum that a failed step has cost. */
  gradients: "zero" | "summed" | "lost";
  /** Why no step can be run any more, if so. */
  broken?: string;
}

/** How many copies of the pipeline there are. */
export function replicasOf({ world, size }: Pick<Context, "world" | "size">): number {
  return world.size / size;
}

/** Says why nothing can be done with the pipeline any more, if so: a step broke it, or a device was lost, in a step or between two. */
export function expectUsable({ ranks, condition }: Pick<Context, "ranks" | "condition">): void {
  let cause: DeviceError | undefined;
  const lost = ranks.find(({ device: { gpu } }) => gpu.lost !== undefined);
  if (lost) {
    const { device: { gpu, rank, activity, place } } = lost;
    const message = `${nameOf(lost)} (${gpu.info.name}): ${gpu.lost}`;
    condition.broken ??= message;
    cause = new DeviceError(rank, activity, message, place);
  }
  const { broken } = condition;
  if (broken !== undefined) {
    throw new Error(
      `The pipeline cannot go on: ${broken}. Close it, open devices anew and load what was saved`,
      cause && { cause },
    );
  }
}

/** What is said of gradients that were added up over several steps, of which one has failed. */
export const lostGradients =
  "The gradients of the steps before were lost when a step failed: call clearGradients() and start the sum anew";
