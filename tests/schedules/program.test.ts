/** `lower()` against a search through all pairs of actions. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { unitCosts } from "../../lib/schedules/price/costs.ts";
import { timesOf } from "../../lib/schedules/price/simulate.ts";
import * as program from "../../lib/schedules/program.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { forwardOnly } from "../../lib/schedules/transforms/forward_only.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { everyWait, isRunnable, nameOf, type Wait } from "../reference/waits.ts";
import { everyPolicy, isSplit, names, schedule } from "./support.ts";

const { lower, inputOf, outputOf, isMessage, nodeKinds } = program;
const passes = ["nothing", "activation", "gradient", "tied gradient"] as const;

/** What a Program's nodes are called in the reference. */
function namesOf({ devices, first, nodes, rank, stage }: program.Program): string[] {
  const count = first[devices], reduces = nodes - 2 * devices;
  return Array.from(
    { length: nodes },
    (_, node) =>
      node < count
        ? nameOf(rank[node], node - first[rank[node]])
        : node < reduces
        ? `sum ${stage[node]}`
        : `${node < reduces + devices ? "reduce" : "update"} ${rank[node]}`,
  );
}

const sorted = (waits: readonly Wait[]) => waits.map(({ from, to, passes }) => `${from} > ${to}: ${passes}`).sort();

const ends = fc.record({
  together: fc.boolean(),
  tied: fc.array(fc.tuple(fc.nat(3), fc.nat(3)), { maxLength: 3 }),
  /** Stages in any order, up to those that there are. */
  sums: fc.oneof(fc.constant([] as number[]), fc.shuffledSubarray([...Array(12).keys()])),
});

const cases = fc.record({
  name: fc.constantFrom(...names),
  devices: fc.integer({ min: 1, max: 4 }),
  rounds: fc.integer({ min: 2, max: 3 }),
  chunks: fc.integer({ min: 1, max: 3 }),
  split: fc.boolean(),
  policy: fc.constantFrom(...everyPolicy({ every: [1, 3], cap: [40] })),
  width: fc.integer({ min: 1, max: 3 }),
  end: ends,
}).map(({ name, devices, rounds, chunks, split, policy, width, end }) => {
  const sizes = { devices, microbatches: rounds * devices };
  const base = generate(name, name === "interleaved-1f1b" ? { ...sizes, chunks } : sizes);
  const senders = Array.from({ length: devices }, (_, rank) =>
    [
      ...new Set(end.tied.flatMap(([one, other]) => one % devices === rank ? [other % devices] : [])),
    ].filter((other) => other !== rank));
  const one = split && !isSplit(base) ? twoStage(base, { policy, width }) : base;
  const sums = end.sums.filter((stage) => stage < one.placement.length);
  return { one, senders, together: end.together, sums };
});

test("lower() finds exactly the waits that looking at every pair of actions finds, and an order that keeps them", () => {
  const seen = { tied: 0, handed: 0, summed: 0 };
  fc.assert(
    fc.property(cases, ({ one, senders, together, sums }) => {
      const lowered = lower(one, { reduceFrom: (rank) => senders[rank], together, sums });
      const { from, to, what, waits, order, nodes, rank } = lowered;
      const nodeNames = namesOf(lowered);
      const expected = everyWait(one, senders, together, sums);
      const found = Array.from(from, (source, edge): Wait => ({
        from: nodeNames[source],
        to: nodeNames[to[edge]],
        passes: passes[what[edge]],
      }));
      assert.deepEqual(sorted(found), sorted(expected));
      assert.ok(isRunnable(one, expected, Array.from(order, (node) => nodeNames[node]), sums));
      seen.summed += sums.length;
      for (let node = 0; node < nodes; node++) {
        for (let edge = waits[node]; edge < waits[node + 1]; edge++) assert.equal(to[edge], node);
      }
      assert.equal(waits[nodes], from.length);
      for (let edge = 0; edge < from.length; edge++) {
        const isFromRankToRank = rank[from[edge]] !== rank[to[edge]];
        assert.equal(isMessage(lowered, edge), what[edge] !== program.NOTHING && isFromRankToRank);
        if (what[edge] === program.TIED) seen.tied++;
        else if (!isFromRankToRank && what[edge] !== program.NOTHING) seen.handed++;
      }
    }),
    { seed: 21, numRuns: 300 },
  );
  assert.ok(seen.tied > 50 && seen.handed > 50 && seen.summed > 50, JSON.stringify(seen));
});

test("nodes, and the tables that lead to them, are those of the lists", () => {
  fc.assert(
    fc.property(cases, ({ one, senders, together, sums }) => {
      const lowered = lower(one, { reduceFrom: (rank) => senders[rank], together, sums });
      const { kind, rank, stage, microbatch, forward, backward, group, slot, microbatches, first, nodes } = lowered;
      for (const [own, list] of one.actions.entries()) {
        for (const [index, action] of list.entries()) {
          const node = first[own] + index;
          assert.deepEqual(
            [nodeKinds[kind[node]], rank[node], stage[node], microbatch[node]],
            [action.kind, own, action.stage, action.microbatches[0]],
          );
          for (const [at, each] of action.microbatches.entries()) {
            const cell = action.stage * microbatches + each;
            if (action.kind === "F") assert.equal(forward[cell], node);
            if (action.kind === "I" || action.kind === "B") assert.equal(backward[cell], node);
            if (action.kind === "W" || action.kind === "B") assert.deepEqual([group[cell], slot[cell]], [node, at]);
          }
          // What comes in and goes out, once more from the other side.
          const input = inputOf(lowered, node), output = outputOf(lowered, node);
          if (output >= 0) assert.equal(inputOf(lowered, lowered.to[output]), output);
          if (input >= 0) assert.equal(outputOf(lowered, lowered.from[input]), input);
          if (action.kind === "W") assert.deepEqual([input, output], [-1, -1]);
        }
      }
      const { actions } = one, devices = actions.length;
      assert.deepEqual(
        Array.from(kind.slice(nodes - 2 * devices), (each) => nodeKinds[each]),
        [...actions.map(() => "reduce"), ...actions.map(() => "update")],
      );
      const summed = Array.from(kind.slice(first[devices], nodes - 2 * devices), (each) => nodeKinds[each]);
      assert.deepEqual(summed, sums.map(() => "sum"));
      const places = Array.from(lowered.sum, (node) => node < 0 ? -1 : stage[node]);
      assert.deepEqual(places, one.placement.map((_, each) => sums.includes(each) ? each : -1));
      for (const each of sums) assert.equal(rank[lowered.sum[each]], one.placement[each]);
      const flat = actions.flat();
      assert.deepEqual(sizesOf(one), {
        devices,
        stages: one.placement.length,
        microbatches: new Set(flat.flatMap((action) => action.microbatches)).size,
        width: Math.max(...flat.map((action) => action.microbatches.length)),
        split: isSplit(one),
      });
    }),
    { seed: 22, numRuns: 150 },
  );
});

test("a rank that sends its gradients to one that is not there is refused", () => {
  const one = generate("gpipe", { devices: 2 });
  for (const other of [2, -1, 0.5, NaN]) {
    assert.throws(() => lower(one, { reduceFrom: () => [other] }), {
      name: "UserError",
      message: `The tail of rank 0 waits for rank ${other}; the ranks are 0 to 1`,
    });
  }
});

test("an update waits for the sum of its rank's gradients, where ranks agree for that of all, and a sum for its twins' last action", () => {
  // Rank 0 ends last, at 8, and rank 1 at 5; a message takes 1.
  const one: Schedule = schedule(["0F0 0B0", "1F0 1B0"]);
  const costs = { ...unitCosts({ comm: 1 }), tail: () => 1 };
  const startsOf = (end: program.StepEnd) => {
    const lowered = lower(one, end);
    const { starts } = timesOf(lowered, costs);
    return Array.from(starts.slice(lowered.nodes - 2));
  };
  assert.deepEqual(startsOf({}), [8, 5]);
  assert.deepEqual(startsOf({ together: true }), [8, 8]);
  assert.deepEqual(startsOf({ reduceFrom: (rank) => rank === 1 ? [0] : [] }), [8, 9]);
  // Nobody updates before rank 1 has added up what comes from rank 0.
  assert.deepEqual(startsOf({ reduceFrom: (rank) => rank === 1 ? [0] : [], together: true }), [9, 9]);
});

test("sums over replicas follow each other on a rank as its stages end, and a rank's update waits for all of them", () => {
  // Rank 0 has stages 0 and 3 and ends stage 3 first; a sum takes 4, and what is tied leaves after the sums.
  const one = schedule(["0F0 3F0 3B0 0B0", "1F0 2F0 2B0 1B0"], [0, 1, 1, 0]);
  const costs = { ...unitCosts({ comm: 1 }), tail: () => 1, sum: () => 4 };
  const sums = [0, 1, 2, 3];
  const timed = (end: program.StepEnd) => {
    const lowered = lower(one, end), { starts, ends, busy } = timesOf(lowered, costs);
    const at = (nodes: number[]) => nodes.map((node) => [starts[node], ends[node]]);
    const last = [lowered.nodes - 2, lowered.nodes - 1];
    return { sums: at(sums.map((stage) => lowered.sum[stage])), updates: at(last), busy };
  };
  // F0 to 1, F1 from 2 to 3, F2 to 4, F3 from 5 to 6, B3 to 8, B2 from 9 to 11, B1 to 13, B0 from 14 to 16.
  const alone = timed({ sums });
  assert.deepEqual(alone.sums, [[16, 20], [15, 19], [11, 15], [8, 12]]);
  assert.deepEqual(alone.updates, [[20, 21], [19, 20]]);
  assert.deepEqual(alone.busy, [7, 7], "a sum keeps no device busy");
  assert.deepEqual(timed({ sums, together: true }).updates, [[20, 21], [20, 21]]);
  assert.deepEqual(timed({ sums, reduceFrom: (rank) => rank === 1 ? [0] : [] }).updates, [[20, 21], [21, 22]]);
  const some = lower(one, { sums: [3] });
  assert.deepEqual([...some.sum], [-1, -1, -1, some.first[2]]);
  assert.equal(lower(forwardOnly(one), { sums }).nodes, 8, "forward passes alone have no gradients");
});

test("sums of stages that are not there, or twice, are refused", () => {
  const one = generate("gpipe", { devices: 2 });
  for (const stage of [2, -1, 0.5, NaN]) {
    assert.throws(() => lower(one, { sums: [0, stage] }), {
      name: "UserError",
      message: `Gradients of stage ${stage} are summed; the stages are 0 to 1`,
    });
  }
  assert.throws(() => lower(one, { sums: [1, 1] }), {
    name: "UserError",
    message: "Gradients of stage 1 are summed twice; once is right",
  });
  assert.throws(() => lower(one, { sums: 1 as unknown as number[] }), {
    name: "UserError",
    message: "Sums over replicas are a list of stages, not 1",
  });
});
