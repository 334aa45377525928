import assert from "node:assert/strict";
import { test } from "node:test";
import { type Batch, type BatchSource, maskedTextSource, textSource } from "../../lib/train/data.ts";
import { shuffled } from "../../lib/train/images.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";

const text = new TextEncoder().encode("to be or not to be");
const refused = (call: () => unknown, message: string | RegExp) => assert.throws(call, { name: "UserError", message });

type Make = (options: Record<string, unknown>) => BatchSource<Batch>;
const sources: [name: string, Make, Record<string, unknown>][] = [
  ["textSource", (options) => textSource(text, options as never), { length: 4, seed: 1 }],
  ["maskedTextSource", (options) => maskedTextSource(text, options as never), { length: 4, seed: 1, mask: 256 }],
  ["syntheticImages", (options) => syntheticImages(options as never), { size: 4, classes: 3, seed: 1 }],
];

for (const [name, make, options] of sources) {
  test(`${name}() names the option that is out of its range, missing or unknown`, () => {
    make(options);
    const words = ["seed", "mask"];
    for (const option of Object.keys(options)) {
      const right = words.includes(option) ? "a whole number from 0 to 4294967295" : "a whole number, 1 or more";
      for (const [value, shown] of [[NaN, "NaN"], [-1, "-1"], [1.5, "1.5"], [undefined, "undefined"], ["4", '"4"']]) {
        refused(() => make({ ...options, [option]: value }), `${name}: ${option} must be ${right}, not ${shown}`);
      }
      if (!words.includes(option)) {
        refused(() => make({ ...options, [option]: 0 }), `${name}: ${option} must be ${right}, not 0`);
      }
    }
    const names = Object.keys(options).join(", ");
    refused(() => make({ ...options, sead: 3 }), `${name}: there is no "sead"; there are ${names}`);
    refused(() => make(undefined as never), `${name} takes an object with ${names}, not undefined`);
  });

  test(`${name}() draws whole numbers of samples, 1 or more`, () => {
    const source = make(options);
    for (const samples of [0, -1, 1.5, NaN, Infinity]) {
      refused(
        () => source.next(samples),
        `The samples to draw must be a whole number, 1 or more, not ${samples}`,
      );
    }
    assert.equal(source.next(3).samples, 3);
  });
}

test("shuffled images are drawn in whole numbers too", () => {
  const draw = shuffled(2, 1);
  for (const samples of [0, 1.5]) refused(() => draw(samples), /^The samples to draw must be/);
});

test("a text is bytes, one sequence long and one more", () => {
  refused(
    () => textSource("to be" as never, { length: 4, seed: 1 }),
    'A text must be a Uint8Array, its bytes (`new TextEncoder().encode(text)`), not "to be"',
  );
  const tokens = (length: number) => textSource(text.subarray(0, 5), { length, seed: 1 }).next(1).inputs;
  refused(() => tokens(5), "The text has 5 bytes; a sequence needs at least 6");
  assert.deepEqual(tokens(4), Uint32Array.from(text.subarray(0, 4)), "there is one place to begin");
});
