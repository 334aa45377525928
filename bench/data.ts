/** What the benches train on: text or images of the user's, or what this project has at hand. */
import { readFileSync } from "node:fs";
import { imageFolder, type Model, textSource, UserError } from "twobp";
import { type BatchSource, maskedTextSource, syntheticImages } from "twobp/train";
import { ownSources } from "../lib/cli/own_sources.ts";
import { fileProblem } from "../lib/files.ts";

/** What a source is drawn from, in words, and the source. */
export interface NamedSource {
  /** For the reader of a table. */
  readonly name: string;
  /** Where batches come from. */
  readonly source: BatchSource;
}

/**
 * Data for a model: for language models the bytes of a file, or this project's own sources; for image models a
 * folder of class folders, or synthetic images.
 *
 * @throws {UserError} When the data cannot be read or is too small.
 */
export function sourceFor(model: Model, path: string | undefined, seed: number): NamedSource {
  const { length, mask, size, classes } = model.configuration;
  if (model.task === "image") {
    return path === undefined
      ? {
        name: "synthetic images (stripes whose direction and hue are the class)",
        source: syntheticImages({ size, classes, seed }),
      }
      : { name: `images of ${path}`, source: imageFolder(path, { size, classes, seed }) };
  }
  const name = path === undefined ? "the sources of this project, bytes as tokens" : `${path}, bytes as tokens`;
  const text = path === undefined
    ? new Uint8Array(Buffer.concat(ownSources().map((file) => readFileSync(file))))
    : readText(path);
  const source = model.task === "next-token"
    ? textSource(text, { length, seed })
    : maskedTextSource(text, { length, seed, mask });
  return { name, source };
}

function readText(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const folder = code === "EISDIR" && "it is a folder, and this model reads a text";
    throw new UserError(`Cannot read --data ${path}: ${folder || fileProblem(error)}`);
  }
}
