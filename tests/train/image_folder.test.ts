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
