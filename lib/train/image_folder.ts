/** Images from a folder with a sub-folder for each class. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { expectFields, positive, u32 } from "../rules.ts";
import { quoted, shown } from "../text.ts";
import type { Batch, BatchSource } from "./data.ts";
import { readImage } from "./image_files.ts";
import { batchOf, normalise, resizeAndCrop, shuffled } from "./images.ts";

/** Images of several classes, drawn in an order that depends on a seed. */
export interface ImageFolder extends BatchSource<Promise<Batch>> {
  /** Names of the classes, sorted: targets are positions in here. */
  readonly classes: readonly string[];
  /** Number of images. */
  readonly images: number;
}

/** Decoded images are kept up to here; beyond, files are read again each time they are drawn. */
const mostKeptBytes = 2 ** 30;

/** Files that are read at a time: each is decoded on a thread of its own, and whole. */
const mostAtOnce = 4;

/**
 * The images of a folder: of each the largest square in its middle, scaled to `size` x `size` and normalised as ImageNet's.
 * A folder inside it is a class, the PNG and JPEG files in there its images; hidden ones and other files are passed over. Whatever its kind, an image becomes
 * red, green and blue, turned as its EXIF orientation says, without transparency, and is shrunk with antialiasing.
 * `size` and `classes` are the model's; the folder may have fewer classes, which take the first targets.
 *
 * ```ts
 * import { imageFolder } from "twobp";
 *
 * const images = imageFolder("photos", { size: 32, classes: 10, seed: 1 });
 * const batch = await images.next(8);
 * console.log(images.classes, batch.targets);
 * ```
 *
 * @throws {UserError} When the folder cannot be read or has fewer than two classes or more than `classes`, a class has no images,
 * or `size`, `classes` or `seed` is no whole number; and, when it is drawn, an image that is damaged or cannot be read.
 */
export function imageFolder(
  path: string,
  options: { size: number; classes: number; seed: number },
): ImageFolder {
  expectFields("imageFolder", options, { size: positive, classes: positive, seed: u32 });
  const { size, classes: most, seed } = options;
  const classes = entries(path).filter(({ folder }) => folder).map(({ name }) => name);
  if (classes.length === 0) throw new UserError(`${path} has no classes: it needs a folder of images for each`);
  if (classes.length === 1) {
    throw new UserError(`${path} has one class only, ${quoted(classes[0])}: there is nothing to tell it from`);
  }
  if (classes.length > most) {
    throw new UserError(`${path} has ${classes.length} classes, the model tells ${most} apart`);
  }
  const files = classes.flatMap((name, target) => {
    const images = entries(join(path, name)).filter((file) => !file.folder && /\.(png|jpe?g)$/i.test(file.name));
    if (images.length === 0) throw new UserError(`${shown(join(path, name))} has no PNG or JPEG images`);
    return images.map((file) => ({ file: join(path, name, file.name), target }));
  });
  const kept = new Map<number, Float32Array>();
  const load = async (index: number) => {
    const { file, target } = files[index];
    let pixels = kept.get(index);
    if (!pixels) {
      pixels = normalise(resizeAndCrop(await readImage(file), size));
      if ((kept.size + 1) * pixels.byteLength <= mostKeptBytes) kept.set(index, pixels);
    }
    return { pixels, target };
  };
  const draw = shuffled(files.length, seed);
  return {
    classes,
    images: files.length,
    next: async (samples) => batchOf(await inTurns(draw(samples), load)),
  };
}

/** What `work` makes of each item, in their order; a few of them are worked on at a time. */
async function inTurns<Item, Result>(items: readonly Item[], work: (item: Item) => Promise<Result>): Promise<Result[]> {
  const results: Result[] = [];
  const waiting = items.entries();
  const turns = Array.from({ length: mostAtOnce }, async () => {
    for (const [index, item] of waiting) results[index] = await work(item);
  });
  await Promise.all(turns);
  return results;
}

/** What is in a folder, sorted by name, without what is hidden; links count as what they lead to. */
function entries(path: string): { name: string; folder: boolean }[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter(({ name }) => !name.startsWith("."))
      .sort((a, b) => a.name < b.name ? -1 : 1)
      .map((entry) => ({ name: entry.name, folder: entry.isDirectory() || leadsToFolder(path, entry) }));
  } catch {
    throw new UserError(`${shown(path)} is not a folder that can be read`);
  }
}

function leadsToFolder(path: string, entry: { name: string; isSymbolicLink(): boolean }): boolean {
  if (!entry.isSymbolicLink()) return false;
  try {
    return statSync(join(path, entry.name)).isDirectory();
  } catch {
    return false; // it leads nowhere or around in a circle
  }
}
