/** Plans with a cluster's times, against pricing every schedule by hand. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../../lib/errors.ts";
import { createModel } from "../../lib/models/registry.ts";
import { clusterLevels } from "../../lib/planning/cluster_levels.ts";
import type { Level } from "../../lib/planning/fit.ts";
import type { TrainingPlan } from "../../lib/planning/options.ts";
import { plan } from "../../lib/planning/plan.ts";
import { recipesFor } from "../../lib/planning/recipes.ts";
import { stageWork } from "../../lib/planning/stage_work.ts";
import { gaveUp } from "../../lib/report/plan.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { zoo } from "../../lib/schedules/generators/zoo.ts";
import type { Cluster } from "../../lib/schedules/price/cluster.ts";
import type { Costs } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";

const model = createModel("llama-tiny");
const mib = 2 ** 20;

interface Times {
  f: number;
  i: number;
  w: number;
  b: number;
  /** What of i and b an R may run ahead. */
  r?: number;
}

/** The price of stages, messages, a host and an end of step, written down once more. */
function priceOf(stages: readonly Times[], comm = 0, host = 0, tail = 0): Costs {
  return {
    duration: ({ kind, stage, microbatches: { length } }) => {
      const { f, i, w, b, r = 0 } = stages[stage];
      return host + { F: f, I: i, W: w * length, B: b, R: r }[kind];
    },
    ahead: (stage) => stages[stage].r ?? 0,
    transfer: (from, to) => from === to ? 0 : comm,
    tail: () => tail,
  };
}

/** Every schedule of so many stages: as it is, and with 2BP. */
function* candidates(devices: number, microbatches: number, stages: number, costs: Costs): Generator<Schedule> {
  for (const { name, isChunked } of zoo) {
    let base: Schedule;
    try {
      base = generate(name, {
        devices,
        microbatches,
        ...isChunked && stages > devices && { chunks: stages / devices },
      });
    } catch (error) {
      if (error instanceof UserError) continue;
      throw error;
    }
    if (sizesOf(base).stages !== stages) continue;
    yield base;
    if (sizesOf(base).split) continue;
    for (const policy of ["fill", "select"] as const) yield twoStage(base, { policy, costs });
  }
}

const even: Times = { f: 1, i: 1, w: 1, b: 2 };
const slowFirst = [{ f: 2, i: 2, w: 2, b: 4 }, even, even, even];
/** As PyTorch has it: no I on the first stage, and I and W dearer than B on the last. */
const uneven = [{ f: 16.9, i: 0.07, w: 33.2, b: 33.5 }, { f: 17.2, i: 20.4, w: 19.2, b: 32.2 }];
const wholePays = Array.from({ length: 4 }, () => ({ f: 1, i: 1, w: 1, b: 1.1 }));
const six = [slowFirst[0], even, even, { f: 0.5, i: 0.5, w: 0.5, b: 1 }, even, even];

for (
  const [what, devices, stages, more] of [
    ["stage 0 is twice as slow", 4, slowFirst, {}],
    ["stage 0 is twice as slow and messages take time", 4, slowFirst, { comm: 0.75 }],
    ["the first stage has no I", 2, uneven, { comm: 0.4, host: 0.6, tail: 1.3 }],
    ["a whole backward takes half of I and W", 4, wholePays, { host: 0.1 }],
    ["each rank has three stages", 2, six, { comm: 0.2, tail: 2 }],
    ["each rank has two stages", 2, slowFirst, {}],
  ] as const
) {
  test(`where ${what}, a plan with the cluster is the fastest of all schedules of its stages`, async () => {
    const { comm = 0, host = 0, tail = 0 }: { comm?: number; host?: number; tail?: number } = more;
    const costs = priceOf(stages, comm, host, tail);
    const all = <T>(value: T) => Array.from({ length: devices }, () => value);
    const cluster: Cluster = { ranks: devices, stages, comm, hosts: all(host), tails: all(tail) };
    for (const microbatches of [devices, 2 * devices]) {
      const found = await plan(model, { devices, microbatches, budget: Infinity, cluster });
      const tried = [...candidates(devices, microbatches, stages.length, costs)];
      const best = Math.min(...tried.map((each) => simulate(each, costs).makespan));
      close(found.makespan, best);
      close(simulate(found.schedule, costs).makespan, best);
      assert.equal(sizesOf(found.schedule).stages, stages.length);
      assert.deepEqual(
        new Set(found.leftOut.map(({ name }) => name)),
        new Set(
          recipesFor(devices, microbatches, model.layers.length).map(({ name }) => name)
            .filter((name) => !tried.some((each) => each.name === name)),
        ),
      );
    }
  });
}

test("the times of a cluster change the choice: whole backwards where these are cheap, split ones where they are not", async () => {
  const planned = (stages: readonly Times[]) =>
    plan(model, { devices: 4, microbatches: 8, budget: Infinity, cluster: { ranks: 4, stages } });
  const [split, whole] = [await planned(slowFirst), await planned(wholePays)];
  assert.ok(sizesOf(split.schedule).split);
  const count = (kind: string) => whole.schedule.actions.flat().filter((action) => action.kind === kind).length;
  assert.ok(count("B") > count("I"), `${count("B")} B and ${count("I")} I`);
});

test("under a budget, what is recomputed takes the stage's time an operation", async () => {
  const sizes = { devices: 4, microbatches: 8, samples: 4 };
  const cluster: Cluster = { ranks: 4, stages: slowFirst, comm: 0.05 };
  const free = await plan(model, { ...sizes, budget: Infinity, cluster });
  for (const budget of [12 * mib, 9 * mib]) {
    const found: TrainingPlan = await plan(model, { ...sizes, budget, cluster });
    const { parts, recompute, peak, makespan, schedule, unlimited } = found;
    assert.ok(peak.every((bytes) => bytes <= budget), `${budget}: ${peak}`);
    assert.equal(unlimited.makespan, free.makespan);
    const [none, work] = [undefined, recompute].map((each) =>
      stageWork(model, { parts, samples: 4, ...each && { recompute: each } }) as readonly Times[]
    );
    const priced = slowFirst.map((taken, stage): Times => {
      const { f, b } = none[stage], operation = (taken.f + taken.b) / (f + b);
      const added = (kind: keyof Times) => ((work[stage][kind] ?? 0) - (none[stage][kind] ?? 0)) * operation;
      return {
        ...{ f: taken.f, i: taken.i + added("i"), w: taken.w + added("w"), b: taken.b + added("b") },
        r: added("r"),
      };
    });
    close(makespan, simulate(schedule, priceOf(priced, 0.05)).makespan);
    if (budget < 10 * mib) {
      assert.ok(recompute.some((each) => each !== "none"));
      assert.ok(simulate(schedule, priceOf(slowFirst, 0.05)).makespan < makespan);
    }
  }
});

test("a cluster whose times are the counted work prices every level as the counted work does", () => {
  const memory = { activations: 1, derivatives: 1, released: 0, parameters: 0 };
  const ways = ["none", "activations:1", "derivatives:1", "both:2"] as const;
  const costs = ways.map((recompute) => stageWork(model, { stages: 3, samples: 2, recompute }) as readonly Times[]);
  const levels = costs[0].map((_, stage): Level[] =>
    ways.map((recompute, way) => ({ recompute, sums: "i", cost: costs[way][stage], memory }))
  );
  const slower = 3e-9;
  const stages = costs[0].map(({ f, i, w, b }) => ({ f: f * slower, i: i * slower, w: w * slower, b: b * slower }));
  const waiting: Level = { ...levels[0][0], sums: "w" };
  const priced = clusterLevels(levels.map((each) => [...each, waiting]), { ranks: 3, stages });
  priced.forEach((each, stage) => {
    assert.deepEqual(each.map(({ recompute }) => recompute), ways, "a W that makes sums is left out");
    each.forEach(({ cost }, way) => {
      for (const kind of ["f", "i", "w", "b"] as const) {
        close((cost as Times)[kind], slower * costs[way][stage][kind]);
      }
    });
  });
});

test("of a cluster that knows whole backwards alone, no split schedule is tried, and the plan says which", async () => {
  const cluster: Cluster = { ranks: 2, stages: [{ f: 2, b: 5 }, { f: 1, b: 2 }] };
  const found = await plan(model, { devices: 2, microbatches: 4, budget: Infinity, cluster });
  assert.ok(!sizesOf(found.schedule).split);
  const unknown = found.leftOut.filter(({ reason }) => /does not say what I takes on stage 0/.test(reason));
  assert.deepEqual(unknown.map(({ name }) => name), [
    "gpipe with 2BP",
    "1f1b with 2BP",
    "zb-h1",
    "zb-h1 with 2BP",
    "zb-h2",
    "zb-h2 with 2BP",
  ]);
  const best = Math.min(
    ...["gpipe", "1f1b"].map((name) =>
      simulate(generate(name, { devices: 2, microbatches: 4 }), priceOf([{ ...even, f: 2, b: 5 }, even])).makespan
    ),
  );
  close(found.makespan, best);
});

test("a cluster in which nothing takes time is planned, and nothing is given up", async () => {
  const cluster: Cluster = { ranks: 2, stages: [{ f: 0, b: 0 }, { f: 0, b: 0 }] };
  const found = await plan(model, { devices: 2, microbatches: 4, budget: Infinity, cluster });
  assert.equal(found.makespan, 0);
  assert.match(gaveUp(found), /^Chosen: .* Nothing given up/);
});

test("without a cluster nothing is left out", async () => {
  assert.deepEqual((await plan(model, { devices: 2, microbatches: 4, budget: Infinity })).leftOut, []);
});

test("a cluster that does not belong to the plan is refused in a line before anything is predicted", async () => {
  let predicted = false;
  const refused = (cluster: unknown, message: string | RegExp, devices = 2) =>
    assert.rejects(
      plan(model, {
        devices,
        microbatches: 4,
        budget: Infinity,
        cluster: cluster as Cluster,
        onProgress: () => predicted = true,
      }),
      (error) => {
        assert.ok(error instanceof UserError);
        if (typeof message === "string") assert.equal(error.message, message);
        else assert.match(error.message, message);
        return true;
      },
    );
  const of = (count: number, ranks = 2) => ({ ranks, stages: Array.from({ length: count }, () => even) });
  await refused(of(2), "The cluster has times of 2 ranks, and the plan is for 4; give the same", 4);
  await refused(
    of(12),
    "The cluster has times of 12 stages, and llama-tiny has 10 layers, which cannot be cut into as many",
  );
  await refused(
    of(3),
    "The cluster has times of 3 stages, and no schedule for 2 ranks and 4 micro-batches has as many; " +
      "those that plan knows have 2 or 4",
  );
  await refused(
    { ranks: 2, stages: [{ f: 1, b: 2 }, { f: 1 }] },
    "The cluster does not say what B takes on stage 1: add b, or i and w",
  );
  await refused({ ranks: 2, stages: [{ f: 1, b: 2 }, { b: 1 }] }, /does not say what F takes on stage 1: add it$/);
  await refused({ ranks: 2, stages: [even, { ...even, i: NaN }] }, /^stages\[1\]\.i must be a time in milliseconds/);
  await refused({ ranks: 2, stage: [even, even] }, /^A cluster file has no "stage"/);
  await refused(null, /^ranks must be a whole number from 1 to 65536, not undefined$/);
  assert.equal(predicted, false);
});

/** Equal within the rounding of sums in another order. */
function close(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) <= 1e-9 * expected, `${actual}, not ${expected}`);
}
