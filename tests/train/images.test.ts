import assert from "node:assert/strict";
import { test } from "node:test";
import { normalise, resizeAndCrop, shuffled } from "../../lib/train/images.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";

const grey = (width: number, height: number, value: (row: number, column: number) => number) => ({
  width,
  height,
  rgb: Float32Array.from({ length: width * height * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3);
    return value(Math.floor(pixel / width), pixel % width);
  }),
});

test("resizeAndCrop() leaves an image of the right size alone", () => {
  const image = grey(5, 5, (row, column) => row * 5 + column);
  assert.deepEqual(resizeAndCrop(image, 5), image.rgb);
});

test("resizeAndCrop() keeps a slope a slope, and cuts the middle out of a wide or a tall image", () => {
  for (const [width, height] of [[10, 4], [4, 10]]) {
    const image = grey(width, height, (row, column) => width > height ? column : row);
    const out = resizeAndCrop(image, 2);
    // The shorter side, 4 pixels, becomes 2; the middle 4 of the longer side are 3 to 6.
    const along = width > height ? [out[0], out[3]] : [out[0], out[6]];
    assert.deepEqual(along, [3.5, 5.5]);
  }
});

test("resizeAndCrop() enlarges within the range of what it is given", () => {
  const out = resizeAndCrop(grey(2, 2, (row, column) => row + column), 7);
  assert.ok(out.every((value) => value >= 0 && value <= 2));
  assert.deepEqual([out[0], out[out.length - 1]], [0, 2]);
});

test("normalise() takes ImageNet's mean colour to 0", () => {
  const normalised = normalise(Float32Array.of(0.485, 0.456, 0.406, 0.714, 0.68, 0.631));
  [0, 0, 0, 1, 1, 1].forEach((value, i) => assert.ok(Math.abs(normalised[i] - value) < 1e-6));
});

test("a source draws each sample once before any comes again, in an order that the seed decides", () => {
  const draw = (seed: number) => {
    const source = shuffled(7, seed, (index) => ({ pixels: Float32Array.of(index), target: index }));
    return [source.next(3), source.next(4), source.next(7)].flatMap(({ targets }) => [...targets]);
  };
  const order = draw(1);
  assert.deepEqual(order.slice(0, 7).sort(), [0, 1, 2, 3, 4, 5, 6]);
  assert.deepEqual(order.slice(7).sort(), [0, 1, 2, 3, 4, 5, 6]);
  assert.deepEqual(draw(1), order);
  assert.notDeepEqual(draw(2), order);
});

test("synthetic images are the same for the same seed, of every class, and about normalised", () => {
  const options = { size: 12, classes: 3, seed: 4 };
  const batch = syntheticImages(options).next(30);
  assert.deepEqual(syntheticImages(options).next(30), batch);
  assert.equal(batch.inputs.length, 30 * 12 * 12 * 3);
  assert.deepEqual([...new Set(batch.targets)].sort(), [0, 1, 2]);
  assert.ok(batch.inputs.every((value) => Math.abs(value) < 8));
});
