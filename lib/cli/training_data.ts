/** What `deno task train` learns from, and what it holds out: texts or images on disk, or what this project has at hand. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { openCorpus } from "../train/corpus.ts";
import type { Batch, PositionedSource } from "../train/data.ts";
import { imageFolder } from "../train/image_folder.ts";
import type { SourcePosition } from "../train/position.ts";
import { syntheticImages } from "../train/synthetic_images.ts";
import { byteTokenizer, loadTokenizer } from "../train/tokenizer.ts";
import { ownSources } from "./own_sources.ts";

/** The flags that say what to learn from. */
export interface DataFlags {
  readonly data?: string;
  readonly field?: string;
  readonly tokenizer?: string;
  readonly from?: string;
  readonly heldOut?: number;
  readonly seed: number;
}

/** Batches to train on, and those that are held out. */
export interface TrainingData {
  /** In words. */
  readonly name: string;
  /** A source of what is trained on, from a position perhaps; made anew each time. */
  source(from?: SourcePosition): PositionedSource;
  /** A source of what is held out; made anew, it draws the same batches again. */
  heldOut(): PositionedSource;
}

/**
 * Opens the data of a model, `heldOut` of them kept apart.
 *
 * @throws {UserError} When a flag is about the other kind of data, and what corpus, tokenizer and image folder refuse.
 */
export async function openTrainingData(model: Model, flags: DataFlags, heldOut: number): Promise<TrainingData> {
  return model.task === "image" ? images(model, flags, heldOut) : await texts(model, flags, heldOut);
}

async function texts(model: Model, flags: DataFlags, heldOut: number): Promise<TrainingData> {
  const { data, field, seed } = flags;
  const ofModel = flags.from === undefined ? undefined : join(flags.from, "tokenizer.json");
  const path = flags.tokenizer ?? (ofModel !== undefined && existsSync(ofModel) ? ofModel : undefined);
  const tokenizer = path === undefined ? byteTokenizer() : await loadTokenizer(path);
  const corpus = await openCorpus(data ?? ownSources(), { heldOut, ...field === undefined ? {} : { field } });
  if (field !== undefined && !corpus.files.some((file) => /\.(jsonl|ndjson|parquet)$/i.test(file))) {
    throw new UserError(`--field is for JSON lines and Parquet, and ${data ?? "the project's sources"} has none`);
  }
  const common = { model, seed, tokenizer };
  const made: TrainingData = {
    name:
      `${data ?? "the sources of this project"}, ${path === undefined ? "bytes as tokens" : `tokens of ${path}`}; ` +
      `${corpus.documents} documents${heldOut > 0 ? `, ${corpus.heldOut} more held out` : ""}`,
    source: (from) => corpus.train({ ...common, ...from === undefined ? {} : { from } }),
    heldOut: () => corpus.held(common),
  };
  made.source(); // refuses a tokenizer that is not the model's
  return made;
}

function images(model: Model, flags: DataFlags, heldOut: number): TrainingData {
  for (const name of ["tokenizer", "field"] as const) {
    if (flags[name] !== undefined) throw new UserError(`--${name} is for texts, and ${model.name} takes images`);
  }
  const { data, seed } = flags, { size, classes } = model.configuration;
  if (data === undefined) {
    if (flags.heldOut !== undefined) {
      throw new UserError("--held-out is a share of what --data has; synthetic images are without end");
    }
    return {
      name: "synthetic images (stripes whose direction and hue are the class)",
      source: (from) => syntheticImages({ size, classes, seed, ...from === undefined ? {} : { from } }),
      heldOut: () => syntheticImages({ size, classes, seed: (seed ^ 0x5eed) >>> 0 }),
    };
  }
  const common = { size, classes, seed, heldOut };
  const { images } = imageFolder(data, common);
  const held = heldOut > 0 ? `, ${imageFolder(data, { ...common, part: "held-out" }).images} more held out` : "";
  return {
    name: `${images} images of ${data}${held}`,
    source: (from) => imageFolder(data, { ...common, ...from === undefined ? {} : { from } }),
    heldOut: () => imageFolder(data, { ...common, part: "held-out" }),
  };
}

/** So many batches that are held out, always the same. */
export async function heldOutBatches(data: TrainingData, count: number, samples: number): Promise<Batch[]> {
  const source = data.heldOut(), batches: Batch[] = [];
  while (batches.length < count) batches.push(await source.next(samples));
  return batches;
}
