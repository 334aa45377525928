import assert from "node:assert/strict";
import { test } from "node:test";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { Memory } from "../../lib/schedules/price/memory.ts";
import { unitCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { mergeBackward } from "../../lib/schedules/transforms/merge.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { isSplit } from "./support.ts";

/** The papers count activations alone, held from the F to the W or B. */
const activations: Memory = () => ({ activations: 1, derivatives: 0 });

/** Idle units of the slowest rank between its first action and its last, with f = i = w = 1. */
function bubble(name: string, devices: number, microbatches: number): number {
  const { steadyBubbleRatio, busy } = simulate(generate(name, { devices, microbatches }));
  return steadyBubbleRatio / (1 - steadyBubbleRatio) * busy[0];
}

const published: [name: string, bubble: (n: number) => number, peak: (n: number) => number, source: string][] = [
  ["1f1b", (n) => 3 * (n - 1), (n) => n, "2401.10241, table 2"],
  ["zb-h1", (n) => n - 1, (n) => n, "2401.10241, table 2: a third of 1F1B's"],
  ["zb-h2", () => 0, (n) => 2 * n - 1, "2401.10241, table 2"],
  ["zb-v", () => 0, (n) => 2 * n, "2401.10241, section 6: 1F1B's N, in halves of a rank's stages"],
  [
    "v-half",
    (n) => 3 * (n - 1),
    (n) => 2 * Math.floor((n + 2) / 2),
    "2405.15362: half of 1F1B's 6(N - 1) half-stage units",
  ],
  ["dualpipe-v", (n) => 2 * (n - 1), (n) => 2 * n + 1, "DualPipe: (N - 1)(F&B + B - 3W), PP + 1 for PP = 2N stages"],
];

for (const [name, bubbleOf, peakOf, source] of published) {
  test(`${name} has its published bubble and peak (${source})`, () => {
    for (const devices of [2, 3, 4, 5, 8, 16]) {
      for (const microbatches of [2 * devices, 4 * devices]) {
        const where = `${devices} devices, ${microbatches} micro-batches`;
        const measured = bubble(name, devices, microbatches);
        // Half of 1F1B's bubble is rounded up for even N; and DualPipe's formula has a forward end together with the
        // backward it overlaps, where here it runs, and sends, before it.
        if (name === "v-half" || name === "dualpipe-v") {
          assert.ok(measured <= bubbleOf(devices) + 1e-9, `${where}: ${measured}`);
        } else assert.ok(Math.abs(measured - bubbleOf(devices)) < 1e-9, `${where}: ${measured}`);
        const { peak } = simulate(generate(name, { devices, microbatches }), unitCosts(), activations);
        assert.equal(Math.max(...peak), peakOf(devices), where);
      }
    }
  });
}

test("v-min holds a third of 1F1B's activations at about two thirds of its bubble (2405.15362)", () => {
  for (const devices of [2, 4, 5, 7, 8, 10, 16]) {
    const { peak } = simulate(generate("v-min", { devices }), unitCosts(), activations);
    assert.ok(Math.max(...peak) <= 2 * Math.floor((devices + 4) / 3));
    assert.ok(bubble("v-min", devices, 4 * devices) <= 4 * (devices - 1) + 1e-9, `${devices} devices`);
  }
  // Where N is a multiple of 3, two blocks would collide, and a gap costs one unit.
  for (const devices of [3, 6, 9, 15]) assert.ok(bubble("v-min", devices, 4 * devices) <= 4 * (devices - 1) + 1 + 1e-9);
});

test("interleaved 1F1B with v chunks a rank has 1F1B's bubble over v (2104.04473, section 2.2)", () => {
  for (const devices of [2, 3, 4, 8]) {
    for (const chunks of [1, 2, 3, 4]) {
      for (const microbatches of [devices, 2 * devices, 4 * devices]) {
        const { steadyBubbleRatio, busy, makespan } = simulate(
          generate("interleaved-1f1b", { devices, microbatches, chunks }),
        );
        const idle = makespan - busy[0];
        assert.ok(Math.abs(idle - 3 * (devices - 1)) < 1e-9, `${devices} x ${chunks}: ${idle} ${steadyBubbleRatio}`);
      }
    }
  }
});

test("the V schedules place the first and the last stage on the first rank", () => {
  for (const name of ["zb-v", "v-half", "v-min", "dualpipe-v"]) {
    assert.deepEqual(generate(name, { devices: 3 }).placement, [0, 1, 2, 2, 1, 0]);
  }
  assert.deepEqual(generate("interleaved-1f1b", { devices: 3 }).placement, [0, 1, 2, 0, 1, 2]);
});

test("every schedule of the zoo is valid wherever it is defined, from 1 to 7 devices and 1 to 18 micro-batches", () => {
  for (const name of ["interleaved-1f1b", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "dualpipe-v"]) {
    let valid = 0;
    for (let devices = 1; devices <= 7; devices++) {
      for (let microbatches = 1; microbatches <= 18; microbatches++) {
        let schedule;
        try {
          schedule = generate(name, { devices, microbatches });
        } catch (error) {
          assert.match(String(error), /^UserError: (dualpipe-v needs at least|interleaved-1f1b runs .* equal rounds)/);
          continue;
        }
        validate(schedule);
        valid++;
      }
    }
    assert.ok(valid > 40, name);
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
