import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { encode as encodePng } from "fast-png";
import jpeg from "jpeg-js";
import { imageFolder } from "../../lib/train/image_folder.ts";
import { readImage } from "../../lib/train/image_files.ts";

let folder: string;
beforeEach(() => folder = mkdtempSync(join(tmpdir(), "images-")));
afterEach(() => rmSync(folder, { recursive: true }));

const options = { size: 4, classes: 3, seed: 1 };

/** Writes an image of one colour. */
function plain(path: string, [red, green, blue]: readonly number[], width = 6, height = 5) {
  mkdirSync(join(folder, path, ".."), { recursive: true });
  const pixels = (channels: number) =>
    Uint8Array.from({ length: width * height * channels }, (_, i) => [red, green, blue, 255][i % channels]);
  writeFileSync(
    join(folder, path),
    path.endsWith("png")
      ? encodePng({ width, height, data: pixels(3), channels: 3, depth: 8 })
      : jpeg.encode({ width, height, data: pixels(4) }, 100).data,
  );
}

const error = (message: RegExp) => ({ name: "UserError", message });

test("imageFolder() draws PNG and JPEG images of its classes, cut to size and normalised", () => {
  plain("red/one.png", [255, 0, 0]);
  plain("blue/two.JPEG", [0, 0, 255]);
  plain("blue/three.jpg", [0, 0, 255], 9, 4);
  writeFileSync(join(folder, "blue", "notes.txt"), "not an image");
  const source = imageFolder(folder, options);
  assert.deepEqual(source.classes, ["blue", "red"]);
  assert.equal(source.images, 3);
  const { samples, inputs, targets } = source.next(3);
  assert.equal(samples, 3);
  assert.deepEqual([...targets].sort(), [0, 0, 1]);
  assert.equal(inputs.length, 3 * 4 * 4 * 3);
  targets.forEach((target, i) => {
    const [red, , blue] = inputs.subarray(i * 48, i * 48 + 3);
    const expected = target === 1 ? [0.515 / 0.229, -0.406 / 0.225] : [-0.485 / 0.229, 0.594 / 0.225];
    assert.ok(Math.abs(red - expected[0]) < 0.05 && Math.abs(blue - expected[1]) < 0.05, `${red}, ${blue}`);
  });
});

test("readImage() takes grey, transparent and 16-bit PNGs", () => {
  const path = join(folder, "x.png");
  const cases = [
    { channels: 1, depth: 8, data: Uint8Array.of(0, 51) },
    { channels: 2, depth: 8, data: Uint8Array.of(0, 255, 51, 255) },
    { channels: 4, depth: 8, data: Uint8Array.of(0, 0, 0, 9, 51, 51, 51, 9) },
    { channels: 3, depth: 16, data: Uint16Array.of(0, 0, 0, 13107, 13107, 13107) },
  ] as const;
  for (const each of cases) {
    writeFileSync(path, encodePng({ width: 2, height: 1, ...each }));
    const { width, height, rgb } = readImage(path);
    assert.deepEqual([width, height], [2, 1]);
    [0, 0, 0, 0.2, 0.2, 0.2].forEach((value, i) => assert.ok(Math.abs(rgb[i] - value) < 1e-6));
  }
});

test("imageFolder() says in one line what is wrong with a folder", () => {
  assert.throws(() => imageFolder(join(folder, "none"), options), error(/none is not a folder that can be read$/));
  assert.throws(() => imageFolder(folder, options), error(/has no classes: it needs a folder of images for each$/));
  plain("one/a.png", [1, 2, 3]);
  assert.throws(() => imageFolder(folder, options), error(/has one class only, "one"/));
  mkdirSync(join(folder, "two"));
  assert.throws(() => imageFolder(folder, options), error(/two has no PNG or JPEG images$/));
  plain("two/a.png", [1, 2, 3]);
  assert.throws(
    () => imageFolder(folder, { ...options, classes: 1 }),
    error(/has 2 classes, the model tells 1 apart$/),
  );
});

test("an image that cannot be read is named", () => {
  plain("one/a.png", [1, 2, 3]);
  mkdirSync(join(folder, "two"));
  for (const [file, bytes] of [["bad.png", [1, 2, 3]], ["bad.jpg", [0xff, 0xd8, 1, 2]], ["bad.png", []]] as const) {
    writeFileSync(join(folder, "two", file), Uint8Array.from(bytes));
    const source = imageFolder(folder, options);
    assert.throws(() => source.next(4), error(/two.bad\.(png|jpg) cannot be read as a PNG or JPEG image: .+$/));
    rmSync(join(folder, "two", file));
  }
});
