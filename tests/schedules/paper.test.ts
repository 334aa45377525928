/** Policy `paper`: the order of weight gradients in the 2BP paper. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { generate, type GenerateOptions } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { pairOf } from "../../lib/schedules/transforms/pair.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { wholeBackward } from "../../lib/schedules/transforms/whole.ts";
import { names, schedule } from "./support.ts";

const paper = (name: string, options: GenerateOptions, width?: number) =>
  twoStage(generate(name, options), { policy: "paper", width });

/** Lists in short: without stages, where each rank has one. */
const shortOf = ({ actions }: Schedule) =>
  actions.map((list) => list.map(({ kind, microbatches }) => kind + microbatches.join("+")).join(" "));

test("policy paper runs no W before the cool-down of 1F1B, one after each of its I, and then the rest in one", () => {
  assert.deepEqual(shortOf(paper("1f1b-1", { devices: 4 })), [
    "F0 F1 F2 F3 I0 W0 I1 W1 I2 W2 I3 W3",
    "F0 F1 F2 I0 F3 I1 W0 I2 W1 I3 W2 W3",
    "F0 F1 I0 F2 I1 F3 I2 W0 I3 W1 W2+3",
    "F0 I0 F1 I1 F2 I2 F3 I3 W0 W1+2+3",
  ]);
  assert.deepEqual(shortOf(paper("1f1b-2", { devices: 2 })), [
    "F0 F1 I0 F2 I1 F3 I2 W0 I3 W1 W2+3",
    "F0 I0 F1 I1 F2 I2 F3 I3 W0 W1+2+3",
  ]);
});

test("policy paper runs all W of naive and GPipe at the end, in one", () => {
  assert.deepEqual(shortOf(paper("naive", { devices: 2 })), ["F0 I0 W0", "F0 I0 W0"]);
  assert.deepEqual(shortOf(paper("naive", { devices: 2, microbatches: 3 })), [
    "F0 I0 F1 I1 F2 I2 W0+1+2",
    "F0 I0 F1 I1 F2 I2 W0+1+2",
  ]);
  for (const devices of [1, 2, 5]) {
    const joined = twoStage(generate("gpipe", { devices }), { policy: "end", width: devices });
    assert.deepEqual(paper("gpipe", { devices }).actions, joined.actions);
  }
});

test("policy paper has the gains of the closed forms with F, I and W of equal cost", () => {
  // Makespans of F + I + W = 3 a micro-batch without 2BP over those with it, for N ranks.
  const gains: Record<string, { form: (n: number) => number; rounded: number[] }> = {
    "naive": { form: (n) => 3 * n / (2 * n + 1), rounded: [1.2, 1.333, 1.412, 1.455] },
    "gpipe": { form: (n) => 3 * (2 * n - 1) / (5 * n - 2), rounded: [1.125, 1.167, 1.184, 1.192] },
    "1f1b-1": { form: (n) => 3 * (2 * n - 1) / (4 * n - 1), rounded: [1.286, 1.4, 1.452, 1.476] },
    "1f1b-2": { form: (n) => 3 * (3 * n - 1) / (7 * n - 1), rounded: [1.154, 1.222, 1.255, 1.27] },
  };
  for (const [name, { form, rounded }] of Object.entries(gains)) {
    for (const [at, devices] of [2, 4, 8, 16].entries()) {
      const { base, split } = pairOf(generate(name, { devices }), { policy: "paper" });
      const gain = simulate(base).makespan / simulate(split).makespan;
      assert.ok(Math.abs(gain - form(devices)) < 1e-12, `${name} on ${devices}: ${gain}`);
      assert.equal(Number(gain.toFixed(3)), rounded[at], `${name} on ${devices}`);
    }
  }
});

test("policy paper works on every schedule of the zoo without its split, and keeps the order of F and I", () => {
  for (const name of names) {
    for (const devices of [2, 3, 4]) {
      const base = wholeBackward(generate(name, { devices, microbatches: 2 * devices }));
      const split = twoStage(base, { policy: "paper" });
      validate(split);
      assert.deepEqual(wholeBackward(split), base);
      for (const [rank, list] of split.actions.entries()) {
        const kinds = list.map(({ kind }) => kind).join("");
        const parts = name === "naive" || name === "gpipe" ? /^[FI]+(W+)$/ : /^(?:[FI]*F)?(?:IW)+(W*)$/;
        const rest = parts.exec(kinds)?.[1];
        assert.ok(rest !== undefined, `${name}, rank ${rank} of ${devices}: ${kinds}`);
        const stages = list.slice(list.length - rest.length).map(({ stage }) => stage);
        assert.equal(new Set(stages).size, stages.length, `${name}, rank ${rank} of ${devices}: one W a stage`);
      }
    }
  }
});

test("policy paper takes the W that has waited longest, and sees no cool-down where no rank runs a forward after a backward", () => {
  const base = schedule(["0F0 0F1 2F0 2F1 2B0 0B0 2B1 0B1", "1F0 1F1 1B0 1B1"], [0, 1, 0]);
  // No rank runs a forward after a backward: no steady phase, and so no cool-down.
  assert.deepEqual(
    twoStage(base, { policy: "paper" }).actions.map((list) =>
      list.filter(({ kind }) => kind === "W").map(({ stage, microbatches }) => `${stage}W${microbatches.join("+")}`)
    ),
    [["2W0+1", "0W0+1"], ["1W0+1"]],
  );
  const steady = schedule(["0F0 0F1 2F0 2B0 0B0 2F1 2B1 0B1", "1F0 1F1 1B0 1B1"], [0, 1, 0]);
  validate(steady);
  assert.deepEqual(
    twoStage(steady, { policy: "paper" }).actions.map((list) =>
      list.map(({ kind, stage, microbatches }) => `${stage}${kind}${microbatches.join("+")}`).join(" ")
    ),
    ["0F0 0F1 2F0 2I0 0I0 2F1 2I1 2W0 0I1 0W0 2W1 0W1", "1F0 1F1 1I0 1W0 1I1 1W1"],
  );
});

test("a width caps the W at the end of policy paper, and nothing does without one", () => {
  for (const width of [1, 2, 3, 7, 8, 100]) {
    assert.equal(sizesOf(paper("1f1b-2", { devices: 4 }, width)).width, Math.min(width, 7));
  }
  assert.equal(sizesOf(paper("1f1b-2", { devices: 4 })).width, 7);
  assert.deepEqual(
    shortOf(paper("gpipe", { devices: 2, microbatches: 5 }, 2))[0],
    "F0 F1 F2 F3 F4 I0 I1 I2 I3 I4 W0+1 W2+3 W4",
  );
});
