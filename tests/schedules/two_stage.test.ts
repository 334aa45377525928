import assert from "node:assert/strict";
import { test } from "node:test";
import type { PolicyText } from "../../lib/schedules/schedule.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { unitCosts as unit } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { everyPolicy, isSplit, names } from "./support.ts";

const goldens: [name: string, policy: PolicyText | "none", makespan: number, peak: number[]][] = [
  ["naive", "none", 12, [1, 1, 1, 1]],
  ["naive", "fill", 9, [2, 2, 2, 2]],
  ["naive", "paper", 9, [2, 2, 2, 2]],
  ["gpipe", "none", 21, [4, 4, 4, 4]],
  ["gpipe", "end", 18, [8, 8, 8, 8]],
  ["gpipe", "paper", 18, [8, 8, 8, 8]],
  ["1f1b-1", "none", 21, [4, 3, 2, 1]],
  ["1f1b-1", "fill", 15, [5, 6, 7, 8]],
  ["1f1b-1", "end", 18, [8, 8, 8, 8]],
  ["1f1b-1", "paper", 15, [5, 6, 7, 8]],
  ["1f1b-2", "none", 33, [4, 3, 2, 1]],
  ["1f1b-2", "fill", 27, [13, 14, 15, 16]],
  ["1f1b-2", "end", 30, [16, 16, 16, 16]],
  ["1f1b-2", "paper", 27, [13, 14, 15, 16]],
  ["1f1b-2", "lean", 27, [5, 6, 7, 8]],
];

for (const [name, policy, makespan, peak] of goldens) {
  test(`${name} on 4 devices with policy ${policy} takes ${makespan} units`, () => {
    const base = generate(name, { devices: 4 });
    const simulation = simulate(policy === "none" ? base : twoStage(base, { policy }));
    assert.equal(simulation.makespan, makespan);
    assert.deepEqual(simulation.peak, peak);
  });
}

const closedForms: [
  name: string,
  policy: PolicyText,
  without: (n: number) => number,
  withTwo: (n: number) => number,
][] = [
  ["naive", "fill", (n) => (n - 1) / n, (n) => 2 * (n - 1) / (2 * n + 1)],
  ["gpipe", "end", (n) => (n - 1) / (2 * n - 1), (n) => 2 * (n - 1) / (5 * n - 2)],
  ["1f1b-1", "fill", (n) => (n - 1) / (2 * n - 1), (n) => (n - 1) / (4 * n - 1)],
  ["1f1b-2", "fill", (n) => (n - 1) / (3 * n - 1), (n) => (n - 1) / (7 * n - 1)],
];

for (const [name, policy, without, withTwo] of closedForms) {
  test(`${name} has its closed-form bubbles with and without 2BP from 2 to 64 devices`, () => {
    for (let devices = 2; devices <= 64; devices++) {
      const base = generate(name, { devices });
      assert.ok(Math.abs(simulate(base).bubbleRatio - without(devices)) < 1e-12, `${devices} devices without`);
      for (const each of [policy, "paper"] as const) {
        const split = simulate(twoStage(base, { policy: each }));
        assert.ok(Math.abs(split.bubbleRatio - withTwo(devices)) < 1e-12, `${devices} devices with ${each}`);
      }
    }
  });
}

test("twoStage() keeps every base schedule valid under every policy and width", () => {
  for (const name of names.filter((name) => !isSplit(generate(name, { devices: 3 })))) {
    for (const policy of everyPolicy({ every: [1, 2, 3], cap: [40] })) {
      for (const width of [1, 2, 3, 7]) {
        const split = twoStage(generate(name, { devices: 3, microbatches: 6 }), { policy, width });
        validate(split);
        assert.equal(split.policy, policy);
        assert.ok(sizesOf(split).width <= width);
        assert.ok(split.actions.flat().every((action) => action.kind === "W" || action.microbatches.length === 1));
      }
    }
  }
});

test("twoStage() with policy every:k leaves at most k weight gradients waiting", () => {
  const split = twoStage(generate("1f1b", { devices: 3, microbatches: 7 }), { policy: "every:2" });
  for (const list of split.actions) {
    let waiting = 0;
    for (const { kind, microbatches } of list) {
      if (kind === "I") waiting++;
      if (kind === "W") waiting -= microbatches.length;
      assert.ok(waiting <= 2);
    }
    assert.equal(waiting, 0);
  }
});

test("twoStage() with policy mid runs the first half of the weight gradients at half time", () => {
  const [list] = twoStage(generate("gpipe", { devices: 1, microbatches: 4 }), { policy: "mid", width: 2 }).actions;
  assert.equal(list.map((a) => a.kind + a.microbatches.join("+")).join(" "), "F0 F1 F2 F3 I0 I1 W0+1 I2 I3 W2+3");
});

test("twoStage() with a cap never holds more, and a larger cap is never slower here", () => {
  const base = generate("1f1b-2", { devices: 4 });
  let before = Infinity;
  for (let bytes = 5; bytes <= 16; bytes++) {
    const { makespan, peak } = simulate(twoStage(base, { policy: `cap:${bytes}` }));
    assert.ok(Math.max(...peak) <= bytes);
    assert.ok(makespan <= before);
    before = makespan;
  }
  assert.equal(before, 27);
});

test("twoStage() explains a cap that cannot be kept", () => {
  assert.throws(() => twoStage(generate("1f1b-2", { devices: 4 }), { policy: "cap:3" }), {
    name: "UserError",
    message: /cap:3 is too small for 1f1b-2: rank 0 needs 5 even if .* runs at once, so cap:5 works$/,
  });
});

test("twoStage() rejects a schedule that is split already, a bad width and a bad policy", () => {
  const base = generate("gpipe", { devices: 2 });
  assert.throws(
    () => twoStage(twoStage(base)),
    /2BP splits full backwards, and gpipe has already split some: rank 0/,
  );
  for (const width of [0, -1, 1.5, NaN]) {
    assert.throws(() => twoStage(base, { width }), /whole number of micro-batches/);
  }
  for (const policy of ["", "filling", "every:0", "every:x", "every:1.5", "cap:0", "cap:", "cap:-4"]) {
    assert.throws(() => twoStage(base, { policy: policy as PolicyText }), /Unknown policy/);
  }
});

test("filling reaches max(f, i, f+i-w) for each warm-up slot whenever w is at least a quarter of the work", () => {
  for (const [f, i, w] of [[1, 1, 1], [1, 2, 1], [2, 1, 3], [1, 1, 2], [0.3, 0.4, 0.5], [0.1, 0.2, 0.3], [3, 2, 2]]) {
    for (const devices of [2, 3, 4, 8]) {
      for (const microbatches of [2 * devices, 3 * devices]) {
        const costs = { f, i, w };
        const split = twoStage(generate("1f1b", { devices, microbatches }), { costs: unit(costs) });
        const floor = microbatches * (f + i + w) + (devices - 1) * Math.max(f, i, f + i - w);
        const { makespan } = simulate(split, unit(costs));
        assert.ok(
          Math.abs(makespan - floor) < 1e-9 * floor,
          `${JSON.stringify(costs)} N=${devices} M=${microbatches}: ${makespan} against ${floor}`,
        );
      }
    }
  }
});
