import assert from "node:assert/strict";
import { test } from "node:test";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { type Costs, stageCosts, unitCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { isSplit, names, random, schedule, slowMakespan } from "./support.ts";

/** Random costs that differ by rank and stage, with links of their own. */
function randomCosts(next: () => number, devices: number, stages: number): Costs {
  const cost = stageCosts(
    Array.from({ length: stages }, () => {
      const w = next();
      return { f: next(), i: next(), w: (width: number) => w * width ** 0.7, b: 1 + next() };
    }),
  );
  const links = Array.from({ length: devices * devices }, next);
  const tails = Array.from({ length: devices }, next), sums = Array.from({ length: stages }, next);
  const scale = 4 * next();
  return {
    duration: cost.duration,
    transfer: (from, to, kind) => from === to ? 0 : links[from * devices + to] * (kind === "F" ? 1 : 2),
    tail: (rank) => tails[rank],
    tailAfter: (rank) => rank === 0 ? [devices - 1] : [], // a tied parameter, one way
    ...(next() < 0.5 ? {} : { sum: (stage) => scale * sums[stage] }),
    ...(next() < 0.5
      ? {}
      : { line: (from, to, kind) => from === to ? 0 : 2 * links[to * devices + from] * (kind === "F" ? 2 : 1) }),
    ...(next() < 0.5 ? {} : { tailTogether: true, agreement: next() }),
  };
}

test("simulate() agrees with a longest-path relaxation on every schedule with random costs", () => {
  const next = random(7);
  for (const name of names) {
    for (const devices of [1, 2, 4]) {
      const base = generate(name, { devices, microbatches: 2 * devices });
      for (const one of isSplit(base) ? [base] : [base, twoStage(base, { policy: "every:2", width: 2 })]) {
        const costs = randomCosts(next, devices, base.placement.length);
        const { makespan } = simulate(one, costs);
        assert.ok(Math.abs(makespan - slowMakespan(one, costs)) < 1e-9, `${name} on ${devices}`);
      }
    }
  }
});

test("simulate() never starts an action before its rank is free or its input has arrived", () => {
  const one = twoStage(generate("1f1b", { devices: 3, microbatches: 5 }));
  const { spans, makespan } = simulate(one, unitCosts({ f: 1, i: 2, w: 0.5, comm: 0.25 }));
  const end = new Map(
    spans.map((span) => [`${span.action.stage}${span.action.kind}${span.action.microbatches}`, span.end]),
  );
  for (const { rank, index, action, start } of spans) {
    if (index > 0) assert.ok(start >= spans.find((span) => span.rank === rank && span.index === index - 1)!.end);
    if (action.kind === "F" && rank > 0) assert.ok(start >= end.get(`${rank - 1}F${action.microbatches}`)! + 0.25);
    if (action.kind === "I" && rank < 2) assert.ok(start >= end.get(`${rank + 1}I${action.microbatches}`)! + 0.25);
  }
  assert.equal(Math.max(...spans.map((span) => span.end)), makespan);
});

test("a tail that waits for another rank's gradients begins when they have come, and the critical path leads there", () => {
  const one = generate("gpipe", { devices: 3, microbatches: 2 });
  const costs: Costs = { ...unitCosts({ comm: 0.5 }), tail: (rank) => rank === 2 ? 4 : 1 };
  const alone = simulate(one, costs), tied = simulate(one, { ...costs, tailAfter: (rank) => rank === 2 ? [0] : [] });
  const ends = [0, 2].map((rank) => Math.max(...tied.spans.filter((span) => span.rank === rank).map(({ end }) => end)));
  assert.ok(ends[0] > ends[1]); // the last stage has long ended
  assert.equal(tied.makespan, ends[0] + 0.5 + 4);
  assert.ok(tied.makespan > alone.makespan);
  assert.equal(tied.criticalPath.at(-1)!.rank, 0);
});

test("tails that begin together wait for the last action of all ranks, and for messages only of those they name", () => {
  const one = generate("gpipe", { devices: 3, microbatches: 2 });
  const costs: Costs = { ...unitCosts({ comm: 0.5 }), tail: (rank) => rank === 2 ? 4 : 1, tailTogether: true };
  const { makespan, spans } = simulate(one, costs);
  const last = Math.max(...spans.map(({ end }) => end));
  assert.equal(makespan, last + 4);
  assert.equal(simulate(one, { ...costs, tailAfter: (rank) => rank === 2 ? [0] : [] }).makespan, last + 0.5 + 4);
});

test("a message leaves when the line is free, and an agreement takes as long as it takes", () => {
  const one = generate("gpipe", { devices: 2, microbatches: 2 });
  const costs = unitCosts({ f: 1, i: 1, w: 1, comm: 3 }), { line, ...free } = { ...costs, line: () => 2 };
  // F0 ends at 1 and leaves, F1 ends at 2 and leaves at 3; the gradients are far enough apart.
  assert.equal(simulate(one, free).makespan, 15);
  assert.equal(simulate(one, { ...costs, line }).makespan, 16);
  const together = { ...costs, line, tail: () => 1, tailTogether: true };
  assert.equal(simulate(one, together).makespan, 17);
  // Rank 0 has been the last for long; rank 1 hears of it 2 later.
  assert.equal(simulate(one, { ...together, agreement: 2 }).makespan, 19);
  assert.throws(
    () => simulate(one, { ...costs, line: () => -1 }),
    /^UserError: The time that a message holds the line from rank 0 to rank 1 must be a finite number, 0 or more, not -1$/,
  );
  assert.throws(
    () => simulate(one, { ...together, agreement: NaN }),
    /^UserError: The time of an agreement must be a finite number, 0 or more, not NaN$/,
  );
});

test("the critical path runs without a gap from the first action to the last, transfers apart", () => {
  const comm = 0.5;
  const one = twoStage(generate("1f1b-2", { devices: 4 }));
  const { criticalPath, makespan } = simulate(one, unitCosts({ f: 1, i: 1.5, w: 0.75, comm }));
  assert.equal(criticalPath[0].start, 0);
  assert.equal(criticalPath.at(-1)!.end, makespan);
  for (let k = 1; k < criticalPath.length; k++) {
    const [before, after] = [criticalPath[k - 1], criticalPath[k]];
    assert.equal(after.start, before.end + (before.rank === after.rank ? 0 : comm));
  }
});

test("a costlier action on the critical path makes the step longer by as much", () => {
  const base = generate("gpipe", { devices: 3 });
  const unit = unitCosts();
  const { makespan, criticalPath } = simulate(base);
  for (const { rank, index } of criticalPath) {
    const slower: Costs = {
      ...unit,
      duration: (a, r, k) => unit.duration(a, r, k) + (r === rank && k === index ? 0.25 : 0),
    };
    assert.equal(simulate(base, slower).makespan, makespan + 0.25);
  }
});

test("simulate() passes each action's rank and position, so that a measured run can be replayed", () => {
  const base = generate("1f1b-1", { devices: 2 });
  const seen: string[] = [];
  simulate(base, {
    duration: (action, rank, index) => (seen.push(`${rank}.${index}`), base.actions[rank][index] === action ? 1 : NaN),
  });
  assert.deepEqual(seen.sort(), ["0.0", "0.1", "0.2", "0.3", "1.0", "1.1", "1.2", "1.3"]);
});

test("simulate() counts a rank's tail as busy time and in the makespan", () => {
  const base = generate("naive", { devices: 2 });
  const { makespan, busy } = simulate(base, { ...unitCosts(), tail: (rank) => rank === 0 ? 5 : 0 });
  assert.equal(makespan, 6 + 5);
  assert.deepEqual(busy, [3 + 5, 3]);
});

test("a wider W costs what its cost function says", () => {
  const one = schedule(["0F0 0F1 0I0 0I1 0W0+1"]);
  assert.equal(simulate(one, stageCosts([{ f: 1, i: 1, w: (width) => width === 2 ? 1.5 : 1 }])).makespan, 5.5);
});

test("simulate() gives the same result twice", () => {
  const one = generate("1f1b", { devices: 5, microbatches: 9 });
  const costs = randomCosts(random(3), 5, 5);
  assert.deepEqual(simulate(one, costs), simulate(one, costs));
});

test("simulate() explains a schedule that cannot run to its end", () => {
  assert.throws(() => simulate(schedule(["0F0 0B0 0F1 0B1", "1F1 1F0 1B0 1B1"])), /^UserError: Deadlock: rank 0/);
});

test("simulate() accepts ranks without actions and costs of zero", () => {
  const one = schedule(["0F0 0B0", ""], [0]);
  assert.equal(simulate(one).makespan, 3);
  assert.equal(simulate(one, unitCosts({ f: 0, i: 0, w: 0 })).bubbleRatio, 0);
});

test("simulate() refuses costs whose sum is no number", () => {
  const tooLarge = /^UserError: The costs are too large: the times of a step add up to more than a number can hold/;
  assert.throws(() => simulate(generate("1f1b-1", { devices: 2 }), unitCosts({ f: 1e308, i: 1, w: 1 })), tooLarge);
  assert.equal(simulate(schedule(["0F0 0B0"], [0]), unitCosts({ f: 1e307, i: 1e307, w: 1e307 })).makespan, 3e307);
});
