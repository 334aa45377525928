import assert from "node:assert/strict";
import { test } from "node:test";
import { type Batch, maskedTextSource, type PositionedSource, textSource } from "../../lib/train/data.ts";
import { generator } from "../../lib/random.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";

const text = new TextEncoder().encode("to be or not to be");
const refused = (call: () => unknown, message: string | RegExp) => assert.throws(call, { name: "UserError", message });

type Make = (options: Record<string, unknown>) => PositionedSource<Batch>;
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
    const names = [...Object.keys(options), "from"].join(", ");
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

for (const [name, make, options] of sources) {
  test(`${name}() goes on from where it stood, bit for bit, and says where it stands as plain JSON`, () => {
    const whole = make(options);
    for (const samples of [1, 3, 2]) whole.next(samples);
    const from = JSON.parse(JSON.stringify(whole.position()));
    const later = make({ ...options, from });
    assert.deepEqual(later.position(), from);
    for (const samples of [2, 1, 5]) assert.deepEqual(later.next(samples), whole.next(samples));
    assert.deepEqual(later.position(), whole.position());
  });

  test(`${name}() refuses a position that is not of such a source`, () => {
    const from = make(options).position();
    const resumed = (from: unknown) => () => make({ ...options, from });
    refused(
      () => make({ ...options, seed: 2, from }),
      `${name}: the position to go on from is of seed 1; here it is 2`,
    );
    refused(
      resumed({ ...from, source: "other" }),
      `${name}: the position to go on from is of source "other"; here it is "${name}"`,
    );
    refused(resumed({}), `${name}: the position to go on from has no source; here it is "${name}"`);
    refused(resumed({ ...from, x: 1 }), `${name}: the position to go on from has "x", which says nothing here`);
    refused(resumed(3), `${name}: from must be a position, as position() returns, not 3`);
    const counter = Object.keys(from).at(-1)!;
    refused(
      resumed({ ...from, [counter]: -1 }),
      `${name}: ${counter} of the position to go on from must be a whole number, 0 or more, not -1`,
    );
  });
}

test("a text source does not go on in another text", () => {
  const from = textSource(text, { length: 4, seed: 1 }).position();
  const other = text.with(3, 65);
  refused(() => textSource(other, { length: 4, seed: 1, from }), /^textSource: the position .* is of text "18 bytes, /);
});

test("a generator goes on behind any number of numbers", () => {
  const random = generator("seed");
  for (let i = 0; i < 5; i++) random.normal();
  random.integer(7);
  assert.equal(random.drawn, 11);
  const later = generator("seed", random.drawn);
  assert.deepEqual([later.uniform(), later.normal()], [random.uniform(), random.normal()]);
  // By the definition: 2^32 numbers are a whole turn.
  assert.equal(generator("seed", 2 ** 32 + 3).uniform(), generator("seed", 3).uniform());
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
