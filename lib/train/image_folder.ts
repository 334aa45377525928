/** Images from a folder with a sub-folder for each class. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { quoted } from "../text.ts";
import type { BatchSource } from "./data.ts";
import { readImage } from "./image_files.ts";
import { normalise, resizeAndCrop, shuffled } from "./images.ts";

/** Images of several classes, drawn in an order that depends on a seed. */
export interface ImageFolder extends BatchSource {
  /** Names of the classes, sorted: targets are positions in here. */
  readonly classes: readonly string[];
  /** Number of images. */
  readonly images: number;
}

/** Decoded images are kept up to here; beyond, files are read again each time they are drawn. */
const mostKeptBytes = 2 ** 30;

/**
 * The images of a folder, cut to `size` x `size` and normalised as ImageNet's. A folder inside it is a class, the PNG
 * and JPEG files in there its images; other files are passed over.
 *
 * @throws {UserError} When the folder cannot be read or has fewer than two classes, a class has no images, or the model has
 * fewer than `classes` of them; and, when it is drawn, an image that cannot be read.
 */
export function imageFolder(
  path: string,
  { size, classes: most, seed }: { size: number; classes: number; seed: number },
): ImageFolder {
  const classes = entries(path).filter((name) => statSync(join(path, name)).isDirectory());
  if (classes.length === 0) throw new UserError(`${path} has no classes: it needs a folder of images for each`);
  if (classes.length === 1) {
    throw new UserError(`${path} has one class only, ${quoted(classes[0])}: there is nothing to tell it from`);
  }
  if (classes.length > most) {
    throw new UserError(`${path} has ${classes.length} classes, the model tells ${most} apart`);
  }
  const files = classes.flatMap((name, target) => {
    const images = entries(join(path, name)).filter((file) => /\.(png|jpe?g)$/i.test(file));
    if (images.length === 0) throw new UserError(`${join(path, name)} has no PNG or JPEG images`);
    return images.map((file) => ({ file: join(path, name, file), target }));
  });
  const kept = new Map<number, Float32Array>();
  const source = shuffled(files.length, seed, (index) => {
    const { file, target } = files[index];
    let pixels = kept.get(index);
    if (!pixels) {
      pixels = normalise(resizeAndCrop(readImage(file), size));
      if ((kept.size + 1) * pixels.byteLength <= mostKeptBytes) kept.set(index, pixels);
    }
    return { pixels, target };
  });
  return { ...source, classes, images: files.length };
}

/** Names in a folder, sorted, without hidden ones. */
function entries(path: string): string[] {
  try {
    return readdirSync(path).filter((name) => !name.startsWith(".")).sort();
  } catch {
    throw new UserError(`${path} is not a folder that can be read`);
  }
}
