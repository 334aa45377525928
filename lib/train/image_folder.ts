/** Images from a folder with a sub-folder for each class. */
import { readdirSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { UserError } from "../errors.ts";
import { generator, hash } from "../random.ts";
import { anything, expectFields, flag, oneOf, optional, positive, type Rule, u32 } from "../rules.ts";
import { quoted, shown } from "../text.ts";
import { type Batch, expectSamples, type PositionedSource } from "./data.ts";
import { expectPart, heldOut as heldOutOf, type Part, share } from "./held_out.ts";
import { readImage } from "./image_files.ts";
import { batchOf, type Image, mirror, normalise, resizeAndCrop } from "./images.ts";
import { oneAtATime } from "./one_at_a_time.ts";
import { permutation } from "./order.ts";
import { positionOf, type SourcePosition, stateFrom } from "./position.ts";
import { cropOf } from "./random_crop.ts";

/** Images of several classes, drawn in an order that depends on a seed. */
export interface ImageFolder extends PositionedSource<Promise<Batch>> {
  /** Names of the classes, sorted: targets are positions in here. */
  readonly classes: readonly string[];
  /** Number of images that are drawn. */
  readonly images: number;
}

/** What {@link imageFolder} takes. */
export interface ImageFolderOptions {
  /** Height and width that the model takes. */
  readonly size: number;
  /** Classes that the model tells apart. */
  readonly classes: number;
  /** Equal seeds draw equal batches: a u32. */
  readonly seed: number;
  /** Whether half of the images, by chance, are mirrored: left becomes right; false by default. */
  readonly flip?: boolean;
  /**
   * The least share of its area that a crop by chance leaves of an image, above 0 and up to 1; 0.08 is usual for ImageNet. The middle
   * of the image without chance by default.
   */
  readonly crop?: number;
  /** The share of the images that is held out of training, up to 0.5; none by default. */
  readonly heldOut?: number;
  /** Which part is drawn from, "train" or "held-out"; "train" by default. */
  readonly part?: Part;
  /** Where to go on: what `position()` of such a source of the same folder has said. From the start by default. */
  readonly from?: SourcePosition;
}

const area: Rule = {
  right: "a number, above 0 and at most 1",
  accepts: (value) => typeof value === "number" && value > 0 && value <= 1,
};

/** Decoded images are kept up to here; beyond, files are read again each time they are drawn. */
const mostKeptBytes = 2 ** 30;

/** Files that are read at a time: each is decoded on a thread of its own, and whole. */
const mostAtOnce = 4;

/**
 * The images of a folder: of each the largest square in its middle, scaled to `size` x `size` and normalised as ImageNet's.
 * A folder inside it is a class, the PNG and JPEG files in there its images; hidden ones and other files are passed over. Whatever its
 * kind, an image becomes red, green and blue, turned as its EXIF orientation says, without transparency, and is shrunk with antialiasing.
 * `size` and `classes` are the model's; the folder may have fewer classes, which take the first targets. All images are drawn before any
 * comes again; with `flip` and `crop` they look different each time.
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
 * an option is out of its range, `from` is the position of another source, or a part has no images; and, when it is drawn, an image that
 * is damaged or cannot be read.
 */
export function imageFolder(
  path: string,
  options: ImageFolderOptions,
): ImageFolder {
  expectFields("imageFolder", options, {
    ...{ size: positive, classes: positive, seed: u32, flip: optional(flag), crop: optional(area) },
    ...{ heldOut: optional(share), part: optional(oneOf(["train", "held-out"] satisfies Part[])), from: anything },
  });
  const { size, classes: most, seed, flip = false, crop, heldOut = 0, part = "train", from } = options;
  const classes = entries(path).filter(({ folder }) => folder).map(({ name }) => name);
  if (classes.length === 0) throw new UserError(`${path} has no classes: it needs a folder of images for each`);
  if (classes.length === 1) {
    throw new UserError(`${path} has one class only, ${quoted(classes[0])}: there is nothing to tell it from`);
  }
  if (classes.length > most) {
    throw new UserError(`${path} has ${classes.length} classes, the model tells ${most} apart`);
  }
  const all = classes.flatMap((name, target) => {
    const images = entries(join(path, name)).filter((file) => !file.folder && /\.(png|jpe?g)$/i.test(file.name));
    if (images.length === 0) throw new UserError(`${shown(join(path, name))} has no PNG or JPEG images`);
    return images.map((file) => ({ file: join(path, name, file.name), target }));
  });
  const isHeldOut = heldOutOf(heldOut);
  const files = all.filter((_, n) => isHeldOut(n) === (part === "held-out"));
  expectPart("images", all.length, files.length, part, heldOut);
  const identity = {
    ...{ files: hash(all.map(({ file }) => relative(path, file)).join("\n")).toString(16), part, heldOut },
    ...{ size, seed, flip: String(flip), crop: crop ?? "none" },
  };
  let state = stateFrom("imageFolder", identity, { epoch: 0, image: 0 }, from);
  const read = keeping(async (index: number) => {
    const image = await readImage(files[index].file);
    return crop === undefined ? { width: size, height: size, rgb: resizeAndCrop(image, size) } : image;
  });
  const load = async ({ epoch, index }: { epoch: number; index: number }) => {
    const image = await read(index);
    const random = generator(`images:${seed}:${epoch}:${index}`);
    const pixels = crop === undefined ? image.rgb.slice() : resizeAndCrop(image, size, cropOf(image, crop, random));
    if (flip && random.uniform() < 0.5) mirror(pixels, size);
    return { pixels: normalise(pixels), target: files[index].target };
  };
  let order = { epoch: -1, indices: new Uint32Array() };
  const inTurn = oneAtATime();
  return {
    classes,
    images: files.length,
    position: () => positionOf("imageFolder", identity, state),
    next(samples) {
      expectSamples(samples);
      return inTurn(async () => {
        let { epoch, image } = state;
        const drawn = Array.from({ length: samples }, () => {
          if (image >= files.length) [epoch, image] = [epoch + 1, 0];
          if (order.epoch !== epoch) order = { epoch, indices: permutation(files.length, `images:${seed}:${epoch}`) };
          return { epoch, index: order.indices[image++] };
        });
        const batch = batchOf(await inTurns(drawn, load));
        state = { epoch, image }; // only now: a batch that fails has not been drawn
        return batch;
      });
    },
  };
}

/** The same images, of which so many are kept as {@link mostKeptBytes} allows. */
function keeping(read: (index: number) => Promise<Image>): (index: number) => Promise<Image> {
  const kept = new Map<number, Image>();
  let bytes = 0;
  return async (index) => {
    let image = kept.get(index);
    if (!image) {
      image = await read(index);
      if (bytes + image.rgb.byteLength <= mostKeptBytes && !kept.has(index)) {
        kept.set(index, image);
        bytes += image.rgb.byteLength;
      }
    }
    return image;
  };
}

/**
 * What `work` makes of each item, in their order; a few of them are worked on at a time. Where one fails, no other is begun, and
 * none is still under way when that is said.
 */
async function inTurns<Item, Result>(items: readonly Item[], work: (item: Item) => Promise<Result>): Promise<Result[]> {
  const results: Result[] = [], failures: unknown[] = [];
  const waiting = items.entries();
  const turns = Array.from({ length: mostAtOnce }, async () => {
    try {
      for (const [index, item] of waiting) {
        if (failures.length > 0) return;
        results[index] = await work(item);
      }
    } catch (error) {
      failures.push(error);
    }
  });
  await Promise.all(turns);
  if (failures.length > 0) throw failures[0];
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
