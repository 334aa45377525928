import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import sharp from "sharp";
import { imageFolder } from "../../lib/train/image_folder.ts";

let folder: string;
beforeEach(() => folder = mkdtempSync(join(tmpdir(), "images-")));
afterEach(() => rmSync(folder, { recursive: true }));

const options = { size: 4, classes: 3, seed: 1 };

/** Writes an image of one colour. */
async function plain(path: string, [r, g, b]: readonly number[], width = 6, height = 5) {
  mkdirSync(join(folder, path, ".."), { recursive: true });
  const image = sharp({ create: { width, height, channels: 3, background: { r, g, b } } });
  writeFileSync(
    join(folder, path),
    await (path.endsWith("png") ? image.png() : image.jpeg({ quality: 100 })).toBuffer(),
  );
}

const error = (message: RegExp) => ({ name: "UserError", message });

test("imageFolder() draws PNG and JPEG images of its classes, cut to size and normalised", async () => {
  await plain("red/one.png", [255, 0, 0]);
  await plain("blue/two.JPEG", [0, 0, 255]);
  await plain("blue/three.jpg", [0, 0, 255], 9, 4);
  writeFileSync(join(folder, "blue", "notes.txt"), "not an image");
  writeFileSync(join(folder, "blue", ".hidden.png"), "not an image");
  writeFileSync(join(folder, "readme.png"), "in no class");
  mkdirSync(join(folder, ".cache"));
  mkdirSync(join(folder, "blue", "folder.png"));
  symlinkSync(join(folder, "nowhere"), join(folder, "dangling"));
  const source = imageFolder(folder, options);
  assert.deepEqual(source.classes, ["blue", "red"]);
  assert.equal(source.images, 3);
  const { samples, inputs, targets } = await source.next(3);
  assert.equal(samples, 3);
  assert.deepEqual([...targets].sort(), [0, 0, 1]);
  assert.equal(inputs.length, 3 * 4 * 4 * 3);
  targets.forEach((target, i) => {
    const [red, , blue] = inputs.subarray(i * 48, i * 48 + 3);
    const expected = target === 1 ? [0.515 / 0.229, -0.406 / 0.225] : [-0.485 / 0.229, 0.594 / 0.225];
    assert.ok(Math.abs(red - expected[0]) < 0.05 && Math.abs(blue - expected[1]) < 0.05, `${red}, ${blue}`);
  });
});

test("batches drawn at once are those drawn one after another", async () => {
  for (let i = 0; i < 7; i++) await plain(`${i % 2 ? "odd" : "even"}/${i}.png`, [30 * i, 0, 0]);
  const [one, other] = [imageFolder(folder, options), imageFolder(folder, options)];
  const atOnce = await Promise.all([one.next(3), one.next(9), one.next(2)]);
  const inTurn = [await other.next(3), await other.next(9), await other.next(2)];
  assert.deepEqual(atOnce, inTurn);
});

test("every image is drawn once before any comes again, and from a position on the same ones come, bit for bit", async () => {
  for (let i = 0; i < 5; i++) await plain(`${i % 2 ? "odd" : "even"}/${i}.png`, [40 * i, 0, 0], 9, 7);
  for (const varied of [{}, { flip: true, crop: 0.3 }]) {
    const whole = imageFolder(folder, { ...options, ...varied });
    const reds = [...(await whole.next(10)).inputs].filter((_, i) => i % 48 === 0).map((red) => Math.round(100 * red));
    for (const epoch of [reds.slice(0, 5), reds.slice(5)]) assert.equal(new Set(epoch).size, 5);
    await whole.next(3);
    const from = JSON.parse(JSON.stringify(whole.position()));
    const later = imageFolder(folder, { ...options, ...varied, from });
    assert.deepEqual([await later.next(4), await later.next(3)], [await whole.next(4), await whole.next(3)]);
    assert.throws(
      () => imageFolder(folder, { ...options, ...varied, seed: 2, from }),
      error(/^imageFolder: the position to go on from is of seed 1; here it is 2$/),
    );
  }
});

test("a batch that fails has not been drawn", async () => {
  for (let i = 0; i < 4; i++) await plain(`${i % 2 ? "odd" : "even"}/${i}.png`, [40 * i, 0, 0]);
  const good = readFileSync(join(folder, "odd", "3.png"));
  const source = imageFolder(folder, options), other = imageFolder(folder, options);
  writeFileSync(join(folder, "odd", "3.png"), "damaged");
  const start = source.position();
  await assert.rejects(source.next(4), error(/3\.png cannot be read/));
  assert.deepEqual(source.position(), start);
  writeFileSync(join(folder, "odd", "3.png"), good);
  assert.deepEqual(await source.next(4), await other.next(4));
});

test("images that are held out are not trained on, and both parts are all there are", async () => {
  for (let i = 0; i < 20; i++) await plain(`${i % 2 ? "odd" : "even"}/${i}.png`, [12 * i, 0, 0]);
  const reds = async (part: "train" | "held-out", seed: number) => {
    const source = imageFolder(folder, { ...options, seed, heldOut: 0.25, part });
    const { inputs } = await source.next(source.images);
    return [...inputs].filter((_, i) => i % 48 === 0).map((red) => Math.round(Math.abs(255 * (red * 0.229 + 0.485))));
  };
  const [train, held] = [await reds("train", 1), await reds("held-out", 1)];
  assert.equal(held.length, 5);
  assert.deepEqual([...train, ...held].sort((a, b) => a - b), Array.from({ length: 20 }, (_, i) => 12 * i));
  assert.deepEqual((await reds("held-out", 9)).sort(), held.sort(), "whatever the seed");
  assert.throws(
    () => imageFolder(folder, { ...options, part: "held-out" }),
    error(/^Of 20 images none is held out with a share of 0: say with `heldOut` which share is$/),
  );
});

test("flips mirror half of the images, crops show parts of them", async () => {
  for (const name of ["a/one.png", "b/two.png"]) {
    mkdirSync(join(folder, name, ".."), { recursive: true });
    // Red grows to the right.
    const pixels = Uint8Array.from({ length: 8 * 8 * 3 }, (_, i) => i % 3 ? 0 : 30 * (Math.floor(i / 3) % 8));
    writeFileSync(
      join(folder, name),
      await sharp(pixels, { raw: { width: 8, height: 8, channels: 3 } }).png().toBuffer(),
    );
  }
  const count = 400;
  const { inputs } = await imageFolder(folder, { ...options, flip: true, crop: 0.1 }).next(count);
  let mirrored = 0;
  const means: number[] = [];
  for (let i = 0; i < count; i++) {
    const row = [0, 3, 6, 9].map((at) => inputs[i * 48 + at]);
    const rises = row.slice(1).map((value, j) => Math.sign(value - row[j]));
    assert.equal(Math.abs(rises[0] + rises[1] + rises[2]), 3, `${row}`);
    mirrored += Number(rises[0] < 0);
    means.push((row[0] + row[3]) / 2);
  }
  assert.ok(mirrored > 160 && mirrored < 240, `${mirrored}`); // four deviations
  assert.ok(new Set(means).size > 350 && Math.max(...means) - Math.min(...means) > 1);
});

test("a class may be a link to a folder, an image a link to a file", async () => {
  await plain("elsewhere/one.png", [255, 0, 0]);
  await plain("classes/b/two.png", [255, 0, 0]);
  symlinkSync(join(folder, "elsewhere"), join(folder, "classes", "a"));
  symlinkSync(join(folder, "elsewhere", "one.png"), join(folder, "classes", "b", "three.png"));
  const source = imageFolder(join(folder, "classes"), options);
  assert.deepEqual(source.classes, ["a", "b"]);
  assert.equal((await source.next(3)).samples, 3);
});

test("imageFolder() says in one line what is wrong with a folder", async () => {
  assert.throws(() => imageFolder(join(folder, "none"), options), error(/none is not a folder that can be read$/));
  assert.throws(() => imageFolder(folder, options), error(/has no classes: it needs a folder of images for each$/));
  await plain("one/a.png", [1, 2, 3]);
  assert.throws(() => imageFolder(folder, options), error(/has one class only, "one"/));
  mkdirSync(join(folder, "two"));
  assert.throws(() => imageFolder(folder, options), error(/two has no PNG or JPEG images$/));
  writeFileSync(join(folder, "two", ".a.png"), "hidden");
  writeFileSync(join(folder, "two", "a.txt"), "no image");
  assert.throws(() => imageFolder(folder, options), error(/two has no PNG or JPEG images$/));
  await plain("two/a.png", [1, 2, 3]);
  assert.throws(
    () => imageFolder(folder, { ...options, classes: 1 }),
    error(/has 2 classes, the model tells 1 apart$/),
  );
  assert.throws(
    () => imageFolder(folder, { ...options, size: 0 }),
    error(/^imageFolder: size must be a whole number, 1 or more, not 0$/),
  );
});

test("an image that cannot be read is named, and none of its batch comes", async () => {
  await plain("one/a.png", [1, 2, 3]);
  mkdirSync(join(folder, "two"));
  for (const [file, bytes] of [["bad.png", [1, 2, 3]], ["bad.jpg", [0xff, 0xd8, 1, 2]], ["bad.png", []]] as const) {
    writeFileSync(join(folder, "two", file), Uint8Array.from(bytes));
    const source = imageFolder(folder, options);
    await assert.rejects(source.next(4), error(/two.bad\.(png|jpg) cannot be read as a PNG or JPEG image: .+$/));
    rmSync(join(folder, "two", file));
  }
  await plain("two/good.png", [1, 2, 3]);
  const good = readFileSync(join(folder, "two", "good.png"));
  const source = imageFolder(folder, options);
  rmSync(join(folder, "two", "good.png"));
  await assert.rejects(source.next(2), error(/two.good\.png cannot be read as a PNG or JPEG image: .*no such file/));
  writeFileSync(join(folder, "two", "good.png"), good);
  assert.equal((await source.next(2)).samples, 2); // put back, it is read
  cpSync(join(folder, "one", "a.png"), join(folder, "two", "good.png"));
});
