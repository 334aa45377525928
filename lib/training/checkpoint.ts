/** Checkpoints of a training: all that its next update depends on, by the names of parameters, whatever partition and devices. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { isTrained } from "../layers/parameter.ts";
import { parametersOf } from "../models/model.ts";
import {
  expectFields,
  expectValue,
  having,
  optional,
  positive,
  type Rule,
  type Rules,
  string,
  whole,
} from "../rules.ts";
import type { OptimizerState } from "../runtime/optimizer_state.ts";
import { companyOf } from "../runtime/elsewhere.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { quoted } from "../text.ts";
import { specFor } from "../train/optimizer_groups.ts";
import type { OptimizerSettings } from "../train/optimizers.ts";
import type { SourcePosition } from "../train/position.ts";
import { finite, loadWeights, weightTensors } from "../weights/checkpoint.ts";
import { shownShape } from "../weights/header.ts";
import { isObject, parseJson } from "../weights/json.ts";
import { openTensorFile, tensorFileBytes } from "../weights/safetensors.ts";
import {
  checkpointPath,
  type Description,
  descriptionFile,
  lastWhole,
  stepsIn,
  type Whole,
  writeCheckpoint,
} from "./checkpoint_folder.ts";

/** What goes into a checkpoint besides what the pipeline has. */
export interface SaveCheckpointOptions {
  /** How many updates the training has made: the checkpoint is `step-000120` for 120. */
  readonly step: number;
  /** Where the data stand, as `position()` of a source says. */
  readonly position?: SourcePosition;
  /** Anything else that is to be given back, as plain JSON. */
  readonly own?: Readonly<Record<string, unknown>>;
  /** How many checkpoints to keep, this one included: older ones are removed once it is written. All by default. */
  readonly keep?: number;
}

/** What a checkpoint says besides what the pipeline is given. */
export interface Checkpoint {
  /** Its own folder. */
  readonly path: string;
  /** How many updates the training had made. */
  readonly step: number;
  /** Where the data stood, for `from` of their source. */
  readonly position?: SourcePosition;
  /** What {@link SaveCheckpointOptions.own} has said. */
  readonly own?: Readonly<Record<string, unknown>>;
  /** Later ones that are damaged and were passed over, each with what is wrong. */
  readonly damaged: readonly string[];
}

const format = 1;
const modelFile = "model.safetensors", optimizerFile = "optimizer.safetensors";
const record: Rule = {
  right: "an object of plain JSON",
  accepts: (value) => isObject(value),
};
const rules: Rules<SaveCheckpointOptions> = {
  step: whole(0, 1e15 - 1),
  position: optional(record),
  own: optional(record),
  keep: optional(positive),
};
const pipelineRule: Rule = {
  ...having("optimizerState", "parameters"),
  right: "a Pipeline, as createPipeline() returns",
};

/**
 * Writes all that the next update of a pipeline depends on into a folder of its own in `folder`: weights and running statistics
 * (`model.safetensors`, as `saveWeights` writes it), what the optimizer keeps (`optimizer.safetensors`), and counts, loss scale, position of
 * the data and all settings (`training.json`). It is written under a temporary name, put on the disk and renamed: killed at any moment, the checkpoints
 * in `folder` are whole. Adapters and frozen parameters are in it as they are.
 *
 * The values are read from the devices first, into as much memory as they take; `train()` goes on while they are written.
 *
 * ```ts
 * import { adamw, createModel, createPipeline, generate, openDevices, textSource } from "twobp";
 * import { loadCheckpoint, saveCheckpoint } from "twobp/train";
 *
 * const text = new TextEncoder().encode("to be or not to be, ".repeat(50));
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
 * const source = textSource(text, { length: 64, seed: 1 });
 * await pipeline.step(generate("1f1b-1", { devices: 2 }), source.next(4));
 * await saveCheckpoint(pipeline, "run", { step: 1, position: source.position(), keep: 3 });
 * const { step, position } = loadCheckpoint(pipeline, "run");
 * const goesOn = textSource(text, { length: 64, seed: 1, from: position });
 * console.log(step, goesOn.next(4).inputs.length);
 * pipeline.close();
 * set.close();
 * ```
 *
 * @returns The path of the checkpoint.
 * @throws {UserError} When it cannot be written, a weight is not finite, gradients of steps without an update are there, or `folder` has a whole checkpoint of
 * this step. The others are as they were then, and so is the pipeline.
 */
export async function saveCheckpoint(
  pipeline: Pipeline,
  folder: string,
  options: SaveCheckpointOptions,
): Promise<string> {
  const write = await captureCheckpoint(pipeline, folder, options);
  await companyOf(pipeline).once(async () => void await write());
  return checkpointPath(folder, options.step);
}

/**
 * Reads what {@link saveCheckpoint} writes; what it returns writes that, while the pipeline trains on: of several processes the first
 * does.
 */
export async function captureCheckpoint(
  pipeline: Pipeline,
  folder: string,
  options: SaveCheckpointOptions,
): Promise<() => Promise<string>> {
  expectValue("saveCheckpoint: the pipeline", pipeline, pipelineRule);
  expectValue("saveCheckpoint: the folder", folder, string);
  expectFields("saveCheckpoint", options, rules);
  const { step, keep } = options;
  // As of now, whatever their owners do while the values are read.
  const { position, own }: Pick<SaveCheckpointOptions, "position" | "own"> = JSON.parse(
    JSON.stringify({ position: options.position, own: options.own }),
  );
  // Asked for at once, so that no step comes in between; and where one is refused, the others are waited for: until then the pipeline is being read.
  const asked = [pipeline.optimizerState(), pipeline.parameters(), pipeline.state()] as const;
  await Promise.allSettled(asked);
  const [optimizer, ...values] = await Promise.all(asked);
  const weights = weightTensors(pipeline, finite(values, checkpointPath(folder, step), pipeline.model));
  const shapes = pipeline.optimizerShapes();
  const moments = [...optimizer.values].map(([name, array]) => ({
    name,
    shape: shapes.get(name)!,
    values: () => array,
  }));
  const { updates, lossScale } = optimizer;
  const description = { format, step, ...settingsOf(pipeline), updates, lossScale, position, own };
  if (!companyOf(pipeline).isFirst) return () => Promise.resolve(checkpointPath(folder, step));
  return () =>
    writeCheckpoint(
      folder,
      step,
      {
        [modelFile]: tensorFileBytes(weights.tensors, weights.metadata),
        [optimizerFile]: tensorFileBytes(moments),
      },
      description,
      keep,
    );
}

/**
 * The last whole checkpoint in `folder`, or what `folder` is itself, without loading it: to make sources that go on from its position.
 *
 * ```ts
 * import { textSource } from "twobp";
 * import { lastCheckpoint } from "twobp/train";
 *
 * const found = lastCheckpoint("run"); // nothing where there is none
 * const text = new TextEncoder().encode("to be or not to be, ".repeat(50));
 * const source = textSource(text, { length: 64, seed: 1, from: found?.position });
 * console.log(source.next(4).samples);
 * ```
 *
 * @throws {UserError} When the folder cannot be read, or the checkpoint is of a later version's format.
 */
export function lastCheckpoint(folder: string): Checkpoint | undefined {
  const damaged: string[] = [], found = findWhole(folder, damaged);
  return found && checkpointOf(found, damaged);
}

/**
 * Gives a pipeline all that the last whole checkpoint in `folder` has, or the one that `folder` is itself. The pipeline may be cut in another way, on
 * other devices, and go on by other schedules: with the same ones every further update has the same bits, and with others those of other
 * sums. Learning rates are the pipeline's own, and may be others. Where the random numbers of dropout stand, the position of the data says. Gradients become zero.
 *
 * @throws {UserError} When there is no whole checkpoint, or it is of another model, precision or optimizer: what differs is named. Nothing has changed
 * then.
 */
export function loadCheckpoint(pipeline: Pipeline, folder: string): Checkpoint {
  expectValue("loadCheckpoint: the pipeline", pipeline, pipelineRule);
  const damaged: string[] = [], found = findWhole(folder, damaged);
  if (!found) {
    throw new UserError(
      `There is no checkpoint in ${folder}` + (damaged.length > 0 ? ` that is whole: ${damaged.join("; ")}` : ""),
    );
  }
  loadWhole(pipeline, found);
  return checkpointOf(found, damaged);
}

/** Finds what {@link loadWhole} loads. */
export function findWhole(folder: string, damaged: string[]): Whole | undefined {
  expectValue("The folder of checkpoints", folder, string);
  const found = lastWhole(folder, damaged);
  if (!found || found.description.format === format) return found;
  throw new UserError(
    `${found.path} is of format ${JSON.stringify(found.description.format)}, and what can be read is ${format}`,
  );
}

/** As {@link loadCheckpoint}, of one that has been found whole. */
export function loadWhole(pipeline: Pipeline, { path, description }: Whole): void {
  compare(pipeline, path, description);
  const state = readMoments(pipeline, join(path, optimizerFile), description);
  loadWeights(pipeline, join(path, modelFile));
  pipeline.setOptimizerState(state);
}

/** What it says. */
export function checkpointOf({ path, description }: Whole, damaged: readonly string[]): Checkpoint {
  const { step, position, own } = description as unknown as SaveCheckpointOptions;
  return { path, step, ...(position ? { position } : {}), ...(own ? { own } : {}), damaged };
}

/** Parameters that an optimizer treats alike. */
interface Kind {
  readonly optimizer: string;
  readonly settings: OptimizerSettings;
  readonly parameters: readonly string[];
}

/** What a checkpoint and a pipeline must have in common, as plain JSON. */
interface Settings {
  readonly model: { readonly name: string; readonly configuration: Readonly<Record<string, number>> };
  readonly precision: string;
  readonly optimizer: readonly Kind[];
}

function settingsOf({ model, precision, optimizer }: Pipeline): Settings {
  const copies = new Set(model.tied?.map(([, { name }]) => name));
  const kinds = new Map<unknown, Kind & { parameters: string[] }>();
  for (const each of parametersOf(model)) {
    if (!isTrained(each) || copies.has(each.name)) continue;
    const spec = specFor(optimizer, each.name), kind = kinds.get(spec);
    if (kind) kind.parameters.push(each.name);
    else kinds.set(spec, { optimizer: spec.name, settings: spec.settings ?? {}, parameters: [each.name] });
  }
  return { model: { name: model.name, configuration: model.configuration }, precision, optimizer: [...kinds.values()] };
}

/** Refuses a checkpoint that another training has made, and says what differs first. */
function compare(pipeline: Pipeline, path: string, description: Description): void {
  const ours = settingsOf(pipeline), theirs = description as unknown as Settings;
  const differing = [
    ...differences("model", { name: theirs.model.name }, { name: ours.model.name }),
    ...differences("model", theirs.model.configuration, ours.model.configuration),
    ...differences("", { precision: theirs.precision }, { precision: ours.precision }),
    ...optimizerDifferences(theirs.optimizer, ours.optimizer),
  ];
  if (differing.length === 0) return;
  throw new UserError(`${path} is of another training: ${differing.slice(0, 3).join("; ")}`);
}

type Values = Readonly<Record<string, unknown>>;

/** What differs between two, in words. */
function differences(owner: string, theirs: Values, ours: Values): string[] {
  const names = [...new Set([...Object.keys(theirs), ...Object.keys(ours)])];
  const text = (value: unknown) => JSON.stringify(value) ?? "not said";
  return names.filter((name) => text(theirs[name]) !== text(ours[name])).map((name) =>
    `${owner ? `${owner} ` : ""}${name} is ${text(theirs[name])} there and ${text(ours[name])} here`
  );
}

/** Learning rates may be others, as those of a schedule are from update to update: nothing that is kept depends on them. */
const withoutRates = (settings: OptimizerSettings): OptimizerSettings =>
  Object.fromEntries(Object.entries(settings).filter(([name]) => !/(^|\.)learningRate$/.test(name)));

/**
 * With which learning rate the last checkpoint of a folder was made, of the first parameters that it names; nothing where it does not
 * say. It is not looked at whether it is whole.
 */
export function savedRate(folder: string): { readonly path: string; readonly rate: number } | undefined {
  const path = checkpointPath(folder, stepsIn(folder)[0] ?? 0);
  try {
    const { optimizer } = parseJson(readFileSync(join(path, descriptionFile))) as unknown as Settings;
    const { learningRate: rate } = optimizer[0].settings;
    return typeof rate === "number" ? { path, rate } : undefined;
  } catch {
    return undefined; // whoever goes on from it says what is wrong
  }
}

/** The same of how parameters are trained: the first parameter that is treated otherwise. */
function optimizerDifferences(theirs: readonly Kind[], ours: readonly Kind[]): string[] {
  const byName = (kinds: readonly Kind[]) =>
    new Map(kinds.flatMap((kind) => kind.parameters.map((name) => [name, kind] as const)));
  const [there, here] = [byName(theirs), byName(ours)];
  for (const name of new Set([...there.keys(), ...here.keys()])) {
    const [a, b] = [there.get(name), here.get(name)];
    if (!a || !b) return [`${quoted(name)} is trained ${a ? "there and not here" : "here and not there"}`];
    const differing = a.optimizer !== b.optimizer
      ? [`optimizer is ${quoted(a.optimizer)} there and ${quoted(b.optimizer)} here`]
      : differences(b.optimizer, withoutRates(a.settings), withoutRates(b.settings));
    if (differing.length > 0) return differing.map((each) => `${each}, for ${quoted(name)}`);
  }
  return [];
}

/** What the optimizer kept: exactly that which the pipeline's keeps. */
function readMoments(pipeline: Pipeline, path: string, description: Description): OptimizerState {
  const { updates, lossScale } = description as unknown as OptimizerState;
  const shapes = pipeline.optimizerShapes(), file = openTensorFile(path);
  try {
    const { tensors } = file;
    for (const [name, shape] of shapes) {
      const found = tensors.get(name);
      if (!found) throw new UserError(`${path} has no ${quoted(name)}, which the optimizer keeps`);
      if (found.shape.join() === shape.join() && found.dtype === "F32") continue;
      throw new UserError(
        `${path}: ${quoted(name)} is ${found.dtype} ${shownShape(found.shape)}, not F32 ${shownShape(shape)}`,
      );
    }
    const stray = [...tensors.keys()].find((name) => !shapes.has(name));
    if (stray !== undefined) throw new UserError(`${path} has ${quoted(stray)}, which the optimizer does not keep`);
    const values = new Map([...shapes.keys()].map((name) => [name, file.read(name)]));
    return { updates, values, ...(lossScale ? { lossScale } : {}) };
  } finally {
    file.close();
  }
}
