import assert from "node:assert/strict";
import { test } from "node:test";
import { generate } from "../../lib/schedules/generators/generate.ts";
import {
  interleavedPlacement,
  linearPlacement,
  vPlacement,
  zigzagPlacement,
} from "../../lib/schedules/generators/placement.ts";
import { zoo } from "../../lib/schedules/generators/zoo.ts";
import type { Memory } from "../../lib/schedules/price/memory.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { mergeBackward } from "../../lib/schedules/transforms/merge.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { isSplit } from "./support.ts";

/** The papers count activations alone, held from the F to the W or B. */
const activations: Memory = () => ({ activations: 1, derivatives: 0 });

/** Idle units of the slowest rank between its first action and its last, with f = i = w = 1. */
function bubbleOf(schedule: Schedule): number {
  const { steadyBubbleRatio, busy } = simulate(schedule);
  return steadyBubbleRatio / (1 - steadyBubbleRatio) * busy[0];
}

for (const { name, paper, published, isChunked, placement } of zoo) {
  test(`${name} has its published bubble and peak (${paper})`, () => {
    for (const devices of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16]) {
      for (const rounds of isChunked ? [1, 2, 4] : [2, 3, 4]) {
        const microbatches = rounds * devices;
        for (const chunks of !isChunked ? [undefined] : placement === "zigzag" ? [2, 4, 6] : [1, 2, 3, 4]) {
          const where = `${devices} devices, ${microbatches} micro-batches, ${chunks ?? "its own"} chunks`;
          const one = generate(name, { devices, microbatches, chunks });
          const found = bubbleOf(one), promised = published.bubble(devices, microbatches);
          if (published.isBound) assert.ok(found <= promised + 1e-9, `${where}: ${found} of ${promised}`);
          else assert.ok(Math.abs(found - promised) < 1e-9, `${where}: ${found}, not ${promised}`);
          const peak = Math.max(...peakMemory(one, activations));
          assert.equal(peak, published.peak(devices, microbatches, chunks ?? NaN), where);
        }
      }
    }
  });
}

/** Bubble and peak by hand, from the papers, of four ranks with eight micro-batches: the table must not be wrong itself. */
const figures: Record<string, [bubble: number, peak: number]> = {
  "naive": [72, 1],
  "gpipe": [9, 8],
  "1f1b-1": [9, 4],
  "1f1b-2": [9, 4],
  "1f1b": [9, 4],
  "interleaved-1f1b": [9, 11],
  "hanayo": [17, 8],
  "1f1b-v": [18, 6],
  "zb-h1": [3, 4],
  "zb-h2": [0, 7],
  "zb-v": [0, 8],
  "v-half": [9, 6],
  "v-min": [12, 4],
  "dualpipe-v": [6, 9],
};

test("the table of the zoo says what the papers say for four ranks and eight micro-batches", () => {
  const found = zoo.map(({ name, published, chunks }) => [name, [
    published.bubble(4, 8),
    published.peak(4, 8, chunks),
  ]]);
  assert.deepEqual(Object.fromEntries(found), figures);
});

test("the table of the zoo says how stages are placed, how many micro-batches are usual, and which names are one schedule", () => {
  const placements = {
    linear: (devices: number) => linearPlacement(devices),
    interleaved: (devices: number, chunks: number) => interleavedPlacement(devices, chunks),
    V: (devices: number) => vPlacement(devices),
    zigzag: (devices: number, chunks: number) => zigzagPlacement(devices, chunks / 2),
  };
  for (const { name, placement, chunks, microbatches, sameAs } of zoo) {
    for (const devices of [1, 2, 3, 5]) {
      const usual = generate(name, { devices });
      assert.deepEqual(usual.placement, placements[placement](devices, chunks), name);
      assert.equal(sizesOf(usual).microbatches, microbatches(devices), name);
      assert.equal(usual.placement.length, chunks * devices);
      if (!sameAs) continue;
      const other = generate(sameAs, { devices, microbatches: microbatches(devices) });
      assert.deepEqual(usual.actions, other.actions, name);
    }
  }
});

test("the V schedules place the first and the last stage on the first rank", () => {
  for (const name of ["1f1b-v", "zb-v", "v-half", "v-min", "dualpipe-v"]) {
    assert.deepEqual(generate(name, { devices: 3 }).placement, [0, 1, 2, 2, 1, 0]);
  }
  assert.deepEqual(generate("interleaved-1f1b", { devices: 3 }).placement, [0, 1, 2, 0, 1, 2]);
  assert.deepEqual(generate("hanayo", { devices: 3, chunks: 4 }).placement, [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0]);
});

test("every schedule of the zoo is valid wherever it is defined, from 1 to 7 devices and 1 to 18 micro-batches", () => {
  for (const { name } of zoo) {
    let valid = 0;
    for (let devices = 1; devices <= 7; devices++) {
      for (let microbatches = 1; microbatches <= 18; microbatches++) {
        let schedule;
        try {
          schedule = generate(name, { devices, microbatches });
        } catch (error) {
          assert.match(String(error), new RegExp(`^UserError: ${name} (needs at least|runs .* equal rounds)`));
          continue;
        }
        validate(schedule);
        valid++;
      }
    }
    assert.ok(valid > 40, name);
  }
});

test("hanayo has no more bubble than its paper says of one round, (2N - 2) / (3NW + N - 1) of a step with W waves", () => {
  for (let devices = 1; devices <= 9; devices++) {
    for (const waves of [1, 2, 3, 8]) {
      const { bubbleRatio } = simulate(generate("hanayo", { devices, chunks: 2 * waves }));
      const paper = (2 * devices - 2) / (3 * devices * waves + devices - 1);
      assert.ok(bubbleRatio <= paper + 1e-9, `${devices} ranks, ${waves} waves: ${bubbleRatio} of ${paper}`);
    }
  }
  const message = /^UserError: hanayo has two stages a rank for each wave, an even number; got 3\. 4 make 2 waves$/;
  assert.throws(() => generate("hanayo", { devices: 2, chunks: 3 }), message);
  assert.throws(() => generate("hanayo", { devices: 2, chunks: 1 }), /got 1\. 2 make 1 wave$/);
});

test("1f1b-v has at most the bubble of 1F1B and about two thirds of its peak, in half stages", () => {
  for (let devices = 1; devices <= 16; devices++) {
    const [v, straight] = ["1f1b-v", "1f1b"].map((name) => generate(name, { devices }));
    assert.ok(bubbleOf(v) <= 2 * bubbleOf(straight) + 1e-9, `${devices} ranks: bubble`);
    const peak = Math.max(...peakMemory(v, activations)), two = 2 * Math.max(...peakMemory(straight, activations));
    assert.ok(peak <= 2 / 3 * two + 2, `${devices} ranks: ${peak} of ${two}`);
  }
});

test("mergeBackward() undoes twoStage() where every W follows its I", () => {
  for (const name of ["naive", "gpipe", "1f1b-2", "interleaved-1f1b"]) {
    const base = generate(name, { devices: 3 });
    assert.deepEqual(mergeBackward(twoStage(base, { policy: "every:1" })), base);
  }
});

test("mergeBackward() leaves I and W apart that are not neighbours, and W of several micro-batches", () => {
  const filled = twoStage(generate("1f1b-1", { devices: 4 }));
  const merged = mergeBackward(filled);
  validate(merged);
  assert.ok(isSplit(merged) && merged.actions.flat().some((action) => action.kind === "B"));
  assert.equal(merged.policy, "fill");
  const wide = twoStage(generate("gpipe", { devices: 2 }), { policy: "end", width: 2 });
  assert.deepEqual(mergeBackward(wide), wide);
});
