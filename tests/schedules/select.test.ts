/** Policy `select`: splits where it pays, against every other way to split. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { fromCsv, toCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { lower } from "../../lib/schedules/program.ts";
import { type Costs, endOf, type StageCost, stageCosts, unitCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { fillIdle } from "../../lib/schedules/transforms/fill.ts";
import { mergeBackward } from "../../lib/schedules/transforms/merge.ts";
import { mixerOf } from "../../lib/schedules/transforms/mixed.ts";
import { pairOf } from "../../lib/schedules/transforms/pair.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { wholeBackward } from "../../lib/schedules/transforms/whole.ts";
import { leastBySplitting } from "../reference/every_split.ts";
import { isSplit, names, random, slowMakespan } from "./support.ts";

const alike = (devices: number, cost: StageCost) => Array.from({ length: devices }, () => cost);
const makespan = (schedule: Schedule, costs: StageCost[], comm = 0) =>
  simulate(schedule, stageCosts(costs, comm)).makespan;
const kinds = ({ actions }: Schedule) => actions.map((list) => list.map(({ kind }) => kind).join(""));

/** Costs at random, a B between two thirds of its I and W and a little more than both. */
function drawn(next: () => number, devices: number): StageCost[] {
  return Array.from({ length: devices }, () => {
    const f = 0.3 + next(), i = 0.1 + next(), w = 0.1 + next();
    return { f, i, w, b: (i + w) * (0.65 + 0.4 * next()) };
  });
}

test("select misses the best of all splits by less than 4 %, and on average by less than half a percent", () => {
  const next = random(16);
  const cases = [["1f1b-1", 2, 2, 40], ["1f1b-1", 2, 3, 30], ["1f1b-1", 2, 4, 6], ["gpipe", 2, 4, 6], [
    "1f1b-1",
    3,
    2,
    25,
  ]] as const;
  let [worst, sum, exact, count] = [1, 0, 0, 0];
  for (const [name, devices, microbatches, turns] of cases) {
    const base = generate(name, { devices, microbatches });
    for (let turn = 0; turn < turns; turn++) {
      const costs = drawn(next, devices), comm = turn % 2 * 0.3 * next();
      const found = twoStage(base, { policy: "select", costs: stageCosts(costs, comm) });
      const best = leastBySplitting(
        base.actions.map((list) => list.map(({ kind }) => kind as "F" | "B")),
        costs,
        comm,
      );
      const gap = makespan(found, costs, comm) / best;
      assert.ok(gap >= 1 - 1e-9, `${gap} of the best of all`);
      worst = Math.max(worst, gap);
      sum += gap;
      if (gap < 1 + 1e-9) exact++;
      count++;
    }
  }
  assert.ok(worst < 1.04 && sum / count < 1.005, `worst ${worst}, mean ${sum / count}`);
  assert.ok(exact > 0.9 * count, `${exact} of ${count} are the best`);
});

test("one pass over a choice takes what the simulator says of its lists, and with all split and no patience is fill's", () => {
  const next = random(3);
  for (const name of names) {
    const base = wholeBackward(generate(name, { devices: 4, microbatches: 8 }));
    const costs = stageCosts(drawn(next, base.placement.length), 0.2);
    const ended = {
      ...costs,
      tail: (rank: number) => rank / 2,
      tailAfter: (rank: number) => rank === 0 ? [3] : [],
      tailTogether: true,
    };
    for (const [width, sum, held] of [[1, 0, 0], [2, 0, 0], [1, 3, 0], [2, 3, 0], [1, 0, 2], [2, 3, 1.5]]) {
      const sums = base.placement.map(() => sum * next());
      const costs: Costs = {
        ...ended,
        ...(sum > 0 ? { sum: (stage) => sums[stage] } : {}),
        // Messages queue for their line, and ranks take time to agree.
        ...(held > 0 ? { line: (from, to) => from === to ? 0 : held, agreement: 0.7 } : {}),
      };
      const program = lower(base, endOf(costs, base)), mixer = mixerOf(program, costs);
      for (const patience of [0, 0.5, 1]) {
        const split = Uint8Array.from(program.kind, () => next() < 0.5 ? 1 : 0);
        for (const rank of program.rank.keys()) if (program.kind[rank] !== 3) split[rank] = 0;
        const choice = { split, patience: new Float64Array(4).fill(patience), width };
        const score = mixer.score(choice), schedule = { ...base, actions: mixer.build(choice) };
        validate(schedule);
        assert.ok(Math.abs(score.makespan - slowMakespan(schedule, costs)) < 1e-9 * score.makespan, name);
        const { busy } = simulate(schedule, costs);
        assert.ok(Math.abs(score.busy - busy.reduce((sum, each) => sum + each, 0)) < 1e-9 * score.busy, name);
      }
      const all = {
        split: program.kind.map((kind) => kind === 3 ? 1 : 0),
        patience: new Float64Array(4),
        width,
      };
      assert.deepEqual(mixer.build(all), fillIdle(program, width, costs), name);
    }
  }
});

test("where a B costs nothing less than its halves select is no slower than fill, and splits no more than helps", () => {
  for (const name of names) {
    const base = generate(name, { devices: 4 });
    if (isSplit(base)) continue;
    for (const costs of [unitCosts(), unitCosts({ w: 0.4 }), unitCosts({ i: 2, comm: 0.3 })]) {
      const fill = twoStage(base, { costs }), select = twoStage(base, { policy: "select", costs });
      assert.ok(simulate(select, costs).makespan <= simulate(fill, costs).makespan * (1 + 1e-9), name);
      const count = ({ actions }: Schedule) => actions.flat().filter(({ kind }) => kind === "I").length;
      assert.ok(count(select) < count(fill), name);
    }
  }
});

test("where a split never pays the result is the schedule itself, and a first stage without I wants neither all nor none", () => {
  const base = generate("1f1b-2", { devices: 3 });
  const costly = stageCosts(alike(3, { f: 1, i: 1, w: 1, b: 0.9 }));
  const kept = twoStage(base, { policy: "select", costs: costly });
  assert.deepEqual([kept.actions, kept.policy, kept.slower], [base.actions, "select", undefined]);
  // As PyTorch has it: a first stage without input gradient, and a last one whose I and W take longer than its B.
  const first = [{ f: 17, i: 0.07, w: 33.2, b: 33.5 }, { f: 17, i: 17.6, w: 22, b: 32.2 }];
  const two = generate("1f1b-2", { devices: 2 });
  const split = twoStage(two, { policy: "select", costs: stageCosts(first) });
  const fill = twoStage(two, { costs: stageCosts(first) });
  assert.ok(makespan(split, first) < Math.min(makespan(two, first), makespan(fill, first)), kinds(split).join());
});

test("a W of several micro-batches is selected where that makes it cheaper", () => {
  const cost = { f: 1, i: 1, w: (width: number) => 0.5 + 0.5 * width, b: 1.9 };
  const costs = stageCosts(alike(4, cost)), base = generate("1f1b-2", { devices: 4 });
  const [single, wide] = [1, 4].map((width) => twoStage(base, { policy: "select", width, costs }));
  assert.ok(simulate(wide, costs).makespan < simulate(single, costs).makespan);
  assert.ok(sizesOf(wide).width > 1);
});

test("a mixed schedule comes back from its CSV, has its pair, and merges what stands together", () => {
  const costs = alike(4, { f: 1, i: 1, w: 1, b: 1.6 });
  const base = generate("1f1b-2", { devices: 4 });
  const mixed = twoStage(base, { policy: "select", costs: stageCosts(costs) });
  const used = new Set(kinds(mixed).join(""));
  assert.deepEqual([...used].sort(), ["B", "F", "I", "W"]);
  for (const transfers of [false, true]) {
    assert.deepEqual(fromCsv(toCsv(mixed, { transfers })).actions, mixed.actions);
  }
  assert.deepEqual(wholeBackward(mixed), base);
  assert.deepEqual(pairOf(mixed), { base, split: mixed });
  const merged = mergeBackward(mixed);
  validate(merged);
  assert.equal(merged.policy, "select");
  for (const list of merged.actions) {
    for (const [at, { kind, microbatches }] of list.entries()) {
      if (kind === "I") assert.notDeepEqual(list[at + 1], { kind: "W", stage: list[at].stage, microbatches });
    }
  }
  assert.throws(() => twoStage(mixed), /has already split some/);
});

test("select gives the same twice, and takes a schedule of 64 ranks and 256 micro-batches", () => {
  const costs = stageCosts(alike(64, { f: 1, i: 1, w: 1, b: 1.6 }));
  const small = () => twoStage(generate("1f1b-2", { devices: 8 }), { policy: "select", costs });
  assert.deepEqual(small(), small());
  const large = generate("1f1b-1", { devices: 64, microbatches: 256 });
  const before = simulate(large, costs).makespan;
  const plain = simulate(twoStage(large, { policy: "fill", costs }), costs).makespan;
  const mixed = simulate(twoStage(large, { policy: "select", costs }), costs).makespan;
  assert.ok(mixed < 0.95 * Math.min(before, plain), `${mixed}, ${plain} with fill, ${before} without`);
});
