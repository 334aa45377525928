/** 2BP with random costs and memory: never slower unasked and unsaid, and least caps that work. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { PolicyText, Schedule } from "../../lib/schedules/schedule.ts";
import { type Costs, type StageCost, stageCosts } from "../../lib/schedules/price/costs.ts";
import { fillIdle } from "../../lib/schedules/transforms/fill.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { StageMemory } from "../../lib/schedules/price/memory.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { mergeBackward } from "../../lib/schedules/transforms/merge.ts";
import { lower } from "../../lib/schedules/program.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { everyPolicy, isSplit, names, slowMakespan } from "./support.ts";

const wholeNames = names.filter((name) => !isSplit(generate(name, { devices: 2, microbatches: 4 })));
const upTo = (most: number) => fc.integer({ min: 0, max: most });

const bases = fc.record({
  name: fc.constantFrom(...wholeNames),
  devices: fc.integer({ min: 1, max: 4 }),
  rounds: fc.integer({ min: 1, max: 2 }),
}).map(({ name, devices, rounds }) => generate(name, { devices, microbatches: rounds * devices }));

/** The actions that are not W, an I being as good as its B. */
const skeleton = ({ actions }: Schedule) =>
  actions.map((list) =>
    list.flatMap(({ kind, stage, microbatches: [m] }) => kind === "W" ? [] : `${stage}${kind === "F" ? "F" : "B"}${m}`)
  );

const priced = bases.chain((base) =>
  fc.record({
    base: fc.constant(base),
    // Costs of W beside those of F and I decide whether filling delays what is critical.
    stages: fc.array(
      fc.record({ f: upTo(6), i: upTo(6), w: upTo(12), fused: fc.constantFrom(0, 0, 0, 3) }),
      { minLength: base.placement.length, maxLength: base.placement.length },
    ),
    comm: upTo(3),
    policy: fc.constantFrom<PolicyText>("fill", "lean", ...everyPolicy({ every: [1, 2], cap: [12] })),
    width: fc.integer({ min: 1, max: 3 }),
  })
);

test("with costs given, fill and lean are never slower than the schedule itself, nor is select whatever a B costs, and every result says by how much it is", () => {
  const seen = { saved: 0, slower: 0, mixed: 0 };
  fc.assert(
    fc.property(priced, ({ base, stages, comm, policy, width }) => {
      const costs = stageCosts(
        stages.map(({ f, i, w, fused }): StageCost => ({ f, i, w, b: Math.max(0, i + w - fused) })),
        comm,
      );
      const memory = (): StageMemory => ({ activations: 1, derivatives: 0 });
      const split = twoStage(base, { policy, width, costs, memory });
      validate(split);
      assert.deepEqual(skeleton(split), skeleton(base));
      assert.ok(sizesOf(split).width <= width && split.policy === policy);
      const before = slowMakespan(base, costs), after = slowMakespan(split, costs);
      const isFused = stages.some(({ fused }) => fused > 0);
      if (policy === "select") {
        assert.ok(after <= before, `select: ${after} after ${before}`);
        const fill = twoStage(base, { policy: "fill", width, costs });
        assert.ok(after <= slowMakespan(fill, costs) * (1 + 1e-9), `select: ${after}`);
        const whole = split.actions.flat().filter(({ kind }) => kind === "B").length;
        if (whole > 0 && sizesOf(split).split) seen.mixed++;
      }
      if ((policy === "fill" || policy === "lean") && !isFused) {
        assert.ok(after <= before, `${after} after ${before}`);
        if (slowMakespan({ ...split, actions: fillIdle(lower(base), width, costs) }, costs) > before) seen.saved++;
      }
      if (after <= before) assert.equal(split.slower, undefined);
      else {
        seen.slower++;
        const slower = after / before - 1; // Infinity after a schedule that takes nothing
        assert.ok(
          split.slower === slower || Math.abs(split.slower! - slower) < 1e-9,
          `${split.slower} for ${after} after ${before}`,
        );
      }
      // What is made of it is another schedule, of which nothing is known.
      assert.equal(mergeBackward(split).slower, undefined);
      assert.equal(twoStage(base, { policy, width, memory }).slower, undefined);
    }),
    { seed: 12, numRuns: 600 },
  );
  assert.ok(seen.saved > 1 && seen.slower > 20 && seen.mixed > 20, JSON.stringify(seen));
});

const remembered = bases.chain((base) =>
  fc.record({
    base: fc.constant(base),
    stages: fc.array(
      fc.record({
        activations: upTo(8),
        released: upTo(8),
        derivatives: upTo(4),
        workspace: fc.record({ F: upTo(3), I: upTo(3), W: upTo(9), B: upTo(3) }),
        messages: fc.record({ F: upTo(2), I: upTo(2) }),
        parameters: upTo(5),
        losses: upTo(1),
      }).map((stage) => ({ ...stage, released: Math.min(stage.released, stage.activations) })),
      { minLength: base.placement.length, maxLength: base.placement.length },
    ),
    unit: fc.constantFrom(1, 0.1, 1 / 3, 1e-6),
    room: upTo(6),
    width: fc.integer({ min: 1, max: 3 }),
  })
);

/** How a rank's part of the step ends: the first and the last rank may have a parameter in common. */
const endings = fc.record({
  tails: fc.array(upTo(9), { minLength: 4, maxLength: 4 }),
  tied: fc.boolean(),
  together: fc.boolean(),
});

test("so are they with tails, which wait for gradients of tied parameters and for all ranks", () => {
  let tied = 0;
  fc.assert(
    fc.property(priced, endings, ({ base, stages, comm, width }, ending) => {
      const ends = [0, base.actions.length - 1];
      const costs: Costs = {
        ...stageCosts(stages, comm),
        tail: (rank) => ending.tails[rank],
        tailAfter: (rank) => ending.tied && ends.includes(rank) ? ends.filter((other) => other !== rank) : [],
        tailTogether: ending.together,
      };
      const before = slowMakespan(base, costs);
      for (const policy of ["fill", "lean"] as const) {
        const split = twoStage(base, { policy, width, costs });
        assert.ok(slowMakespan(split, costs) <= before);
        assert.equal(split.slower, undefined);
      }
      const last = twoStage(base, { policy: "end", width, costs }), after = slowMakespan(last, costs);
      assert.ok(Math.abs((last.slower ?? 0) - Math.max(0, after / before - 1)) < 1e-9, `${last.slower}`);
      const untied = slowMakespan(base, { ...costs, tailAfter: () => [] });
      if (untied < before) tied++;
    }),
    { seed: 13, numRuns: 200 },
  );
  assert.ok(tied > 5, `${tied}`);
});

test("the least cap that a refusal names works, no less does but where messages leave before W, and every cap is kept", () => {
  let less = 0;
  fc.assert(
    fc.property(remembered, ({ base, stages, unit, room, width }) => {
      const scaled = <T>(amounts: T): T =>
        (typeof amounts === "number"
          ? amounts * unit
          : Object.fromEntries(Object.entries(amounts as object).map(([name, value]) => [name, scaled(value)]))) as T;
      const models = stages.map((stage): StageMemory => scaled(stage));
      const memory = (stage: number) => models[stage];
      const capped = (cap: number | string, width: number) =>
        twoStage(base, { policy: `cap:${cap}` as PolicyText, memory, width });
      const named = (cap: number) => {
        try {
          capped(cap, width);
        } catch (error) {
          assert.equal((error as Error).name, "UserError");
          return /so cap:(\S+) works$/.exec((error as Error).message)![1];
        }
      };
      const least = named(1e-12 * unit);
      if (least === undefined) {
        return void assert.ok(stages.every(({ activations, derivatives }) => activations + derivatives === 0));
      }
      for (const cap of [Number(least), Number(least) + room * unit]) {
        const split = capped(cap, width);
        validate(split);
        const peaks = peakMemory(split, memory);
        assert.ok(Math.max(...peaks) <= cap * (1 + 1e-9), `${peaks} under ${cap}`);
      }
      assert.deepEqual(capped(least, width), capped(Number(least), width));
      const next = named(Number(least) * (1 - 1e-6));
      if (next === least) return;
      // A W that runs at once may find what its I sends still there; later it does not.
      assert.ok(next === undefined && stages.some(({ messages }) => messages.I > 0), `${next} below ${least}`);
      less++;
    }),
    { seed: 12, numRuns: 400 },
  );
  assert.ok(less < 8, `${less} of 400`);
});
