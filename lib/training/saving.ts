/** Checkpoints of the training loop: written while its steps go on, and found again. */
import { UserError } from "../errors.ts";
import { optional, positive, type Rules, string } from "../rules.ts";
import { isObject } from "../weights/json.ts";
import { companyOf } from "../runtime/elsewhere.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import type { SourcePosition } from "../train/position.ts";
import { captureCheckpoint, type Checkpoint, checkpointOf, findWhole, loadWhole } from "./checkpoint.ts";
import { prepareFolder, stepsIn } from "./checkpoint_folder.ts";
import type { TrainEvaluation } from "./evaluation.ts";

/** Where checkpoints are written. */
export interface SavingOptions {
  /** In which folder, a checkpoint each in a folder `step-000120` of its own. It is made where there is none. */
  readonly folder: string;
  /** After so many updates, and after the last. */
  readonly every: number;
  /** How many are kept, the last ones; 2 by default. */
  readonly keep?: number;
}

/** What they must be. */
export const savingRules: Rules<SavingOptions> = { folder: string, every: positive, keep: optional(positive) };

/** How far a loop has come. */
export interface Progress {
  /** Updates. */
  readonly done: number;
  readonly epoch: number;
  /** Updates of this epoch. */
  readonly inEpoch: number;
  /** Of the last update. */
  readonly loss?: number;
  /** Evaluations one after another that have found nothing better. */
  readonly bad: number;
  readonly last?: TrainEvaluation;
  readonly best?: TrainEvaluation;
}

/** Where every loop begins. */
export const nothingDone: Progress = { done: 0, epoch: 0, inEpoch: 0, bad: 0 };

/** Where a loop goes on. */
export interface Resumed {
  readonly checkpoint: Checkpoint;
  readonly progress: Progress;
  /** Gives the pipeline what it has. */
  load(): void;
}

/** What saves a loop. */
export interface Saving {
  readonly every: number;
  /** Where it goes on, if that was asked for and there is a checkpoint. */
  readonly start?: Resumed;
  /**
   * Reads what there is to save, and begins to write it; one at a time.
   *
   * @throws {UserError} When that, or what was begun before, cannot be written.
   */
  save(progress: Progress, position: SourcePosition | undefined): Promise<void>;
  /** Throws where something could not be written. */
  expectWell(): void;
  /** Waits for what is being written, and throws where it cannot be. */
  written(): Promise<void>;
  /** Waits for what is being written, however it ends. */
  settled(): Promise<void>;
}

/** What of a loop's options its updates depend on, as plain JSON. */
interface Fixed {
  readonly samples?: number;
  readonly accumulate?: number;
  readonly clip?: number;
}

/**
 * Looks at the folder before anything runs, and finds its last checkpoint.
 *
 * @throws {UserError} When it cannot be written to, has checkpoints that nobody asked to go on from, or one of another training.
 */
export function savingOf(
  pipeline: Pipeline,
  { folder, every, keep = 2 }: SavingOptions,
  options: Fixed & { readonly resume?: boolean },
): Saving {
  const { isFirst } = companyOf(pipeline);
  if (isFirst) prepareFolder(folder);
  const { resume = false, samples, accumulate = 1, clip } = options;
  const fixed: Fixed = { samples, accumulate, clip };
  const start = resume ? resumed(pipeline, folder, fixed) : undefined;
  const [step] = isFirst ? stepsIn(folder) : [];
  if (!resume && step !== undefined) {
    throw new UserError(
      `train: ${folder} has a checkpoint of step ${step}: say \`resume: true\` to go on from there, or give another folder`,
    );
  }
  let writing: Promise<unknown> = Promise.resolve(), failure: unknown;
  const expectWell = () => {
    if (failure !== undefined) throw failure;
  };
  const written = async () => {
    await writing;
    expectWell();
  };
  return {
    every,
    ...(start ? { start } : {}),
    async save(progress, position) {
      await written(); // so that no more than one set of values is in memory
      const write = await captureCheckpoint(pipeline, folder, {
        ...{ step: progress.done, keep, own: { progress, fixed } },
        ...(position ? { position } : {}),
      });
      writing = write().catch((error) => failure = error);
    },
    expectWell,
    written,
    settled: async () => void await writing,
  };
}

function resumed(pipeline: Pipeline, folder: string, fixed: Fixed): Resumed | undefined {
  const damaged: string[] = [], found = findWhole(folder, damaged);
  if (!found) {
    if (damaged.length === 0) return undefined;
    throw new UserError(`train: there is no whole checkpoint in ${folder}: ${damaged.join("; ")}`);
  }
  const { own } = found.description;
  if (!isObject(own) || !isObject(own.progress) || !isObject(own.fixed)) {
    throw new UserError(`train: ${found.path} was not saved by train(): loadCheckpoint() gives a pipeline what it has`);
  }
  for (const name of ["samples", "accumulate", "clip"] as const) {
    if (own.fixed[name] === fixed[name]) continue;
    throw new UserError(
      `train: ${found.path} is of another training: ${name} is ${said(own.fixed[name])} there and ${
        said(fixed[name])
      } here`,
    );
  }
  return {
    checkpoint: checkpointOf(found, damaged),
    progress: own.progress as unknown as Progress,
    load: () => loadWhole(pipeline, found),
  };
}

const said = (value: unknown) => value === undefined ? "not said" : JSON.stringify(value);
