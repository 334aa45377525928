import assert from "node:assert/strict";
import { test } from "node:test";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";

test("generate() lists the schedules when it does not know a name", () => {
  assert.throws(() => generate("foo", { devices: 2 }), {
    name: "UserError",
    message: /^Unknown schedule "foo"; the schedules are naive, gpipe, 1f1b-1, 1f1b-2, 1f1b/,
  });
  assert.throws(() => generate("toString", { devices: 2 }), /Unknown schedule/);
});

test("generate() rejects sizes that are not whole and positive", () => {
  for (const devices of [0, -1, 1.5, NaN, Infinity]) {
    assert.throws(() => generate("gpipe", { devices }), /gpipe needs a whole number of devices, 1 or more/);
  }
  assert.throws(() => generate("gpipe", { devices: 2, microbatches: 0 }), /whole number of micro-batches/);
  assert.throws(() => generate("gpipe", { devices: 2, chunks: 2 }), /only interleaved-1f1b and hanayo take chunks/);
});

test("the paper's schedules have their usual numbers of micro-batches", () => {
  for (const [name, microbatches] of [["naive", 1], ["gpipe", 4], ["1f1b-1", 4], ["1f1b-2", 8]] as const) {
    assert.equal(sizesOf(generate(name, { devices: 4 })).microbatches, microbatches);
  }
});

test("1F1B keeps N - r activations on rank r and GPipe keeps M", () => {
  for (
    const { name, most } of [{ name: "1f1b", most: (rank: number) => 5 - rank }, {
      name: "gpipe",
      most: () => 12,
    }]
  ) {
    generate(name, { devices: 5, microbatches: 12 }).actions.forEach((list, rank) => {
      let inFlight = 0;
      let peak = 0;
      for (const { kind } of list) peak = Math.max(peak, inFlight += kind === "F" ? 1 : -1);
      assert.equal(peak, most(rank));
    });
  }
});
