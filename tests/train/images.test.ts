import assert from "node:assert/strict";
import { test } from "node:test";
import { generator } from "../../lib/random.ts";
import { type Box, mirror, normalise, resizeAndCrop } from "../../lib/train/images.ts";
import { readTensors } from "../models/fixture.ts";
import { permutation } from "../../lib/train/order.ts";
import { cropOf } from "../../lib/train/random_crop.ts";
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

/** Noise, as tests/fixtures/images.py makes it. */
function pattern(width: number, height: number) {
  const rgb = Float32Array.from({ length: width * height * 3 }, (_, i) => {
    const colour = i % 3, x = Math.floor(i / 3) % width, y = Math.floor(i / 3 / width);
    const seed = Math.imul(x * 7919 + y * 104729 + colour * 1299709 + 1, 2654435761) >>> 0;
    return (Math.imul(seed ^ (seed >>> 15), 2246822519) >>> 24) / 255;
  });
  return { width, height, rgb };
}

test("resizeAndCrop() makes smaller and larger what Pillow makes of the same noise, within 1/255", () => {
  const expected = readTensors("images.expected.safetensors");
  const resized = [...expected.keys()].filter((name) => name.includes(" to "));
  assert.equal(resized.length, 6);
  for (const name of resized) {
    const [width, height, size, step] = name.match(/\d+/g)!.map(Number);
    const out = resizeAndCrop(pattern(width, height), size);
    const kept = out.filter((_, i) => Math.floor(i / 3) % size % step === 0 && Math.floor(i / 3 / size) % step === 0);
    const right = expected.get(name)!;
    assert.equal(kept.length, right.length);
    const worst = Math.max(...kept.map((value, i) => Math.abs(255 * value - right[i])));
    assert.ok(worst <= 1, `${name}: off by ${worst} of 255`); // Pillow rounds twice, to bytes
  }
});

test("resizeAndCrop() weighs every pixel: stripes keep their mean, noise loses its deviation", () => {
  const stripes = resizeAndCrop(grey(256, 256, (_, column) => column % 8 === 0 ? 1 : 0), 32);
  const mean = stripes.reduce((sum, value) => sum + value, 0) / stripes.length;
  assert.ok(Math.abs(mean - 0.125) < 1e-3, `${mean}`);
  const noise = resizeAndCrop(pattern(256, 256), 32);
  const average = noise.reduce((sum, value) => sum + value, 0) / noise.length;
  const deviation = Math.sqrt(noise.reduce((sum, value) => sum + (value - average) ** 2, 0) / noise.length);
  // 0.289 over the root of 16 x 16 pixels, of which the triangle counts 9/4 as one: Pillow's is 0.025.
  assert.ok(deviation > 0.022 && deviation < 0.028, `${deviation}`);
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

/** Each pixel as the weighted mean of all that the triangle filter covers, by the definition. */
function averaged(image: ReturnType<typeof grey>, size: number, box: Box): number[] {
  const weight = (distance: number, scale: number) => Math.max(0, 1 - Math.abs(distance) / Math.max(1, scale));
  const [across, down] = [box.width / size, box.height / size];
  return Array.from({ length: size * size * 3 }, (_, i) => {
    const colour = i % 3, column = Math.floor(i / 3) % size, row = Math.floor(i / 3 / size);
    let sum = 0, weights = 0;
    for (let y = 0; y < image.height; y++) {
      for (let x = 0; x < image.width; x++) {
        const w = weight(x + 0.5 - box.left - (column + 0.5) * across, across) *
          weight(y + 0.5 - box.top - (row + 0.5) * down, down);
        sum += w * image.rgb[(y * image.width + x) * 3 + colour];
        weights += w;
      }
    }
    return sum / weights;
  });
}

test("resizeAndCrop() of a box is the mean under the triangle filter, whatever its sides", () => {
  const image = pattern(31, 17);
  for (const box of [[0, 0, 31, 17], [3.25, 1.5, 20.5, 9.75], [12, 4, 5, 8], [30, 0, 1, 17]]) {
    const [left, top, width, height] = box;
    const out = resizeAndCrop(image, 8, { left, top, width, height });
    averaged(image, 8, { left, top, width, height }).forEach((right, i) =>
      assert.ok(Math.abs(out[i] - right) < 1e-5, `${box}: ${out[i]} for ${right}`)
    );
  }
});

test("cropOf() stays inside, keeps area and shape in their ranges, and goes everywhere", () => {
  const image = { width: 40, height: 30 };
  const random = generator("crops");
  const boxes = Array.from({ length: 4000 }, () => cropOf(image, 0.2, random));
  let left = 0, shares = 0;
  for (const box of boxes) {
    assert.ok(box.left >= 0 && box.top >= 0 && box.left + box.width <= 40 && box.top + box.height <= 30);
    const share = box.width * box.height / 1200, ratio = box.width / box.height;
    assert.ok(share >= 0.2 - 1e-9 && share <= 1 && ratio > 0.75 - 1e-9 && ratio < 4 / 3 + 1e-9);
    left += (box.left + box.width / 2) / 4000;
    shares += share / 4000;
  }
  assert.ok(Math.abs(left - 20) < 0.3, `${left}`);
  // Less than 0.6, since large ones of odd shape do not fit: a share s does for ln(16/9) or, above 9/16, -ln(s) of the ratios.
  const most = Math.log(16 / 9), edge = 9 / 16;
  const integral = most * (edge ** 2 - 0.2 ** 2) / 2 + 1 / 4 - edge ** 2 / 4 + edge ** 2 / 2 * Math.log(edge);
  const expected = integral / (most * (edge - 0.2) + 1 - edge + edge * Math.log(edge));
  assert.ok(Math.abs(shares - expected) < 0.012, `${shares} for ${expected}`);
  const strip = cropOf({ width: 400, height: 4 }, 1, random);
  assert.deepEqual(strip, { left: 198, top: 0, width: 4, height: 4 }, "nothing fits: the middle");
});

test("mirror() is its own inverse and changes left and right", () => {
  const image = Float32Array.from({ length: 3 * 3 * 3 }, (_, i) => i);
  const mirrored = mirror(image.slice(), 3);
  assert.deepEqual([...mirrored.subarray(0, 9)], [6, 7, 8, 3, 4, 5, 0, 1, 2]);
  assert.deepEqual(mirror(mirrored, 3), image);
});

test("a permutation has each number once, in an order that its key decides", () => {
  const order = permutation(50, "a");
  assert.deepEqual(order.toSorted(), Uint32Array.from({ length: 50 }, (_, i) => i));
  assert.deepEqual(permutation(50, "a"), order);
  assert.notDeepEqual(permutation(50, "b"), order);
  // Every number is as likely anywhere: over many keys the mean of each place is that of all.
  const means = new Float64Array(4);
  for (let key = 0; key < 3000; key++) permutation(4, `${key}`).forEach((n, i) => means[i] += n / 3000);
  means.forEach((mean) => assert.ok(Math.abs(mean - 1.5) < 0.1, `${means}`));
});

test("synthetic images are the same for the same seed, of every class, and about normalised", () => {
  const options = { size: 12, classes: 3, seed: 4 };
  const batch = syntheticImages(options).next(30);
  assert.deepEqual(syntheticImages(options).next(30), batch);
  assert.equal(batch.inputs.length, 30 * 12 * 12 * 3);
  assert.deepEqual([...new Set(batch.targets)].sort(), [0, 1, 2]);
  assert.ok(batch.inputs.every((value) => Math.abs(value) < 8));
});
