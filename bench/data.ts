/** What the benches train on: text or images of the user's, or what this project has at hand. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { imageFolder, type Model, textSource, UserError } from "twobp";
import { type BatchSource, maskedTextSource, syntheticImages } from "twobp/train";
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
  const text = path === undefined ? ownSources() : readText(path);
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

function ownSources(): Uint8Array {
  const root = fileURLToPath(new URL("..", import.meta.url));
  const sources = ["lib", "kernels", "bench"].flatMap((folder) =>
    (readdirSync(join(root, folder), { recursive: true }) as string[]).sort()
      .filter((name) => /\.(ts|wgsl)$/.test(name)).map((name) => join(root, folder, name))
  );
  const files = [join(root, "README.md"), join(root, "mod.ts"), ...sources].filter((file) => existsSync(file));
  return new Uint8Array(Buffer.concat(files.map((file) => readFileSync(file))));
}
