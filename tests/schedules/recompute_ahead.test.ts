import assert from "node:assert/strict";
import { test } from "node:test";
import { fromCsv, toCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { type Costs, type StageCost, stageCosts, unitCosts } from "../../lib/schedules/price/costs.ts";
import type { StageMemory } from "../../lib/schedules/price/memory.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { withContention } from "../../lib/schedules/price/contention.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { recomputeAhead } from "../../lib/schedules/transforms/recompute_ahead.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { wholeBackward } from "../../lib/schedules/transforms/whole.ts";
import { names, random, schedule, slowMakespan } from "./support.ts";

/** Costs of random stages, of whose I and B a part recomputes. */
function randomStages(count: number, next: () => number): Required<StageCost>[] {
  return Array.from({ length: count }, () => {
    const f = 1 + next(), r = next() < 0.2 ? 0 : f * next(), i = r + 1 + next(), w = 1 + next();
    return { f, i, w, b: i + w * (0.8 + 0.3 * next()), r };
  });
}

/** The same costs, action by action, as whoever knows nothing of R would be given them. */
function explicit({ actions }: Schedule, stages: readonly Required<StageCost>[], comm: number): Costs {
  const times = actions.map((list) => {
    const seen = new Set<string>();
    return list.map(({ kind, stage, microbatches }) => {
      const { f, i, w, b, r } = stages[stage], cell = `${stage} ${microbatches[0]}`;
      if (kind === "R") seen.add(cell);
      const ahead = seen.has(cell) ? r : 0;
      return { F: f, R: r, I: i - ahead, B: b - ahead, W: (w as number) * microbatches.length }[kind];
    });
  });
  return { duration: (_, rank, index) => times[rank][index], transfer: (from, to) => from === to ? 0 : comm };
}

test("recomputation ahead of the gradient never makes a step longer, and takes what action by action adds up to", () => {
  const next = random(7);
  let shorter = 0, count = 0;
  for (const name of names) {
    for (const devices of [2, 4]) {
      const base = generate(name, { devices }), comm = next() < 0.5 ? 0 : next();
      const stages = randomStages(base.placement.length, next), costs = stageCosts(stages, comm);
      const whole = wholeBackward(base), ahead = recomputeAhead(whole);
      const splits = ["fill", "lean", "select", "paper", "end", "every:2"].flatMap((policy) =>
        [1, 2].map((width) => twoStage(ahead, { policy: policy as "fill", width, costs }))
      );
      for (const each of [ahead, recomputeAhead(base), ...splits]) {
        const { makespan } = simulate(each, costs);
        const slow = slowMakespan(each, explicit(each, stages, comm));
        assert.ok(Math.abs(makespan - slow) < 1e-9 * slow, `${name} on ${devices}: ${makespan}, by hand ${slow}`);
      }
      const [before, after] = [base, recomputeAhead(base)].map((each) => simulate(each, costs).makespan);
      assert.ok(after <= before * (1 + 1e-12), `${name} on ${devices}: ${after} over ${before}`);
      count++;
      if (after < before * (1 - 1e-9)) shorter++;
    }
  }
  assert.ok(shorter > count / 2, `shorter in ${shorter} of ${count}`);
});

test("2BP fills what recomputation leaves idle: each R stays before its I or B, and select takes no longer", () => {
  const next = random(11);
  for (const name of ["gpipe", "1f1b-1", "1f1b-2", "interleaved-1f1b"]) {
    const base = recomputeAhead(generate(name, { devices: 4 })), stages = randomStages(base.placement.length, next);
    const costs = stageCosts(stages, 0.3);
    for (const policy of ["fill", "lean", "select", "paper", "end", "mid", "every:2"] as const) {
      const split = twoStage(base, { policy, costs });
      for (const list of split.actions) {
        const own = list.filter(({ kind }) => kind === "R" || kind === "I" || kind === "B");
        for (const [at, { kind, stage, microbatches }] of own.entries()) {
          if (kind !== "R") continue;
          assert.notEqual(own[at + 1].kind, "R");
          assert.deepEqual([own[at + 1].stage, own[at + 1].microbatches], [stage, microbatches]);
        }
      }
    }
    const selected = twoStage(base, { policy: "select", costs });
    assert.ok(simulate(selected, costs).makespan <= simulate(base, costs).makespan * (1 + 1e-9));
  }
});

test("by hand: 1F1B on four ranks waits one recomputation less at each of three hops", () => {
  const costs = unitCosts({ i: 2, r: 1 }), base = generate("1f1b-1", { devices: 4 });
  // F and B take 4 together, (M + N - 1) of them; ahead of the gradient each of the N - 1 hops back is 1 shorter.
  assert.equal(simulate(base, costs).makespan, 4 * (4 + 3));
  assert.equal(simulate(recomputeAhead(base), costs).makespan, 4 * (4 + 3) - 3);
  // The last stage waits for nobody: nothing is gained there.
  assert.equal(simulate(recomputeAhead(base, [3]), costs).makespan, 28);
});

test("what is recomputed is held from R to the backward", () => {
  const memory = (): StageMemory => ({
    ...{ activations: 1, derivatives: 2, ahead: { activations: 10, workspace: { R: 3, I: 1, B: 4 } } },
    workspace: { I: 5, B: 5 },
  });
  // Each moment by hand. F 1, F 2, R 12 + 3, R 22 + 3, I 24 + 1, I 16 + 1.
  assert.deepEqual(peakMemory(schedule(["0F0 0F1 0R0 0R1 0I0 0I1 0W0 0W1"]), memory), [25]);
  // F 1, F 2, R 12 + 3, I 14 + 1, R 14 + 3, I 16 + 1.
  assert.deepEqual(peakMemory(schedule(["0F0 0F1 0R0 0I0 0R1 0I1 0W0 0W1"]), memory), [17]);
  // F 1, F 2, I 4 + 5, I 6 + 5.
  assert.deepEqual(peakMemory(schedule(["0F0 0F1 0I0 0I1 0W0 0W1"]), memory), [11]);
  // F 1, F 2, R 12 + 3, B 12 + 4, R 11 + 3, B 11 + 4.
  assert.deepEqual(peakMemory(schedule(["0F0 0F1 0R0 0B0 0R1 0B1"]), memory), [16]);
});

test("an R out of place is explained", () => {
  const refused = (list: string, message: RegExp) =>
    assert.throws(() => validate(schedule([list])), { name: "UserError", message }, list);
  refused("0R0 0F0 0B0", /^Rank 0, action 0 \(0R0\): it needs the forward 0F0 first, and it comes later, as action 1$/);
  refused(
    "0F0 0I0 0R0 0W0",
    /^Rank 0, action 2 \(0R0\): it runs ahead what a backward recomputes, and that of the micro-batch is over, as action 1 \(0I0\)$/,
  );
  refused(
    "0F0 0R0 0R0 0B0",
    /^Rank 0, action 2 \(0R0\): the recomputation of micro-batch 0 on stage 0 already runs as/,
  );
  refused("0F0 0R0", /^Rank 0 never runs the backward of micro-batch 0 on stage 0$/);
  refused(
    "0F0 0F1 0R0+1 0B0 0B1",
    /^Rank 0, action 2 \(0R0\+1\): it carries 2 micro-batches; only a W may carry several$/,
  );
  const base = generate("1f1b-1", { devices: 2 });
  assert.throws(() => recomputeAhead(recomputeAhead(base)), /^UserError: 1f1b-1 says itself where it recomputes ahead/);
  assert.throws(
    () => recomputeAhead(base, [2]),
    /^UserError: 1f1b-1 has no stage 2 to recompute; its stages are 0 to 1$/,
  );
  assert.throws(() => unitCosts({ i: 1, r: 2 }), /^UserError: The cost r is 2 of the 1 that its backward takes in all/);
  assert.throws(
    () => stageCosts([{ f: 1, i: 3, w: 1, b: 2, r: 2.5 }]),
    /^UserError: The cost r of stage 0 is 2.5 of the 2 that its backward takes in all/,
  );
});

test("a CSV file keeps every R, and one for PyTorch, which has none, leaves them out", () => {
  const ahead = recomputeAhead(twoStage(generate("1f1b-1", { devices: 2 })));
  assert.deepEqual(fromCsv(toCsv(ahead)).actions, ahead.actions);
  assert.deepEqual(fromCsv(toCsv(ahead, { transfers: true })).actions, ahead.actions);
  assert.equal(toCsv(ahead, { for: "torch" }), toCsv(twoStage(generate("1f1b-1", { devices: 2 })), { for: "torch" }));
});

test("where ranks slow each other, only what a backward still does itself is stretched", () => {
  const base = recomputeAhead(generate("gpipe", { devices: 2, microbatches: 1 }));
  const costs = unitCosts({ i: 2, r: 2, w: 0 });
  // R on rank 0 while rank 1 runs F, R and nothing of a B that is left: F 1, F 1 and R together, of which they share 2.
  const stretched = withContention(base, costs, 2);
  const { spans } = simulate(base, stretched);
  for (const { action: { kind }, start, end } of spans) if (kind === "B") assert.equal(end - start, 0);
});
