import assert from "node:assert/strict";
import { test } from "node:test";
import { ganttText } from "../../lib/report/gantt_text.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { fromCsv, toCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { stageCosts } from "../../lib/schedules/price/costs.ts";
import { memoryTimeline } from "../../lib/schedules/price/memory_timeline.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { lower } from "../../lib/schedules/program.ts";
import { forwardOnly } from "../../lib/schedules/transforms/forward_only.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { lists, names } from "./support.ts";

test("the forward passes of every schedule, split or not, run to their end and keep their order", () => {
  for (const name of names) {
    const whole = generate(name, { devices: 3, microbatches: 6 });
    const schedule = forwardOnly(whole);
    validate(schedule);
    assert.equal(lower(schedule).forwardOnly, true);
    assert.equal(lower(whole).forwardOnly, false);
    for (const [rank, list] of schedule.actions.entries()) {
      assert.deepEqual(list, whole.actions[rank].filter(({ kind }) => kind === "F"), name);
    }
    assert.equal(forwardOnly(schedule), schedule, "there is nothing more to leave out");
  }
});

test("with one stage a rank they take as long as the micro-batches and the stages before the last", () => {
  for (const [devices, microbatches] of [[1, 1], [1, 5], [4, 1], [4, 8], [3, 2]]) {
    for (const name of ["gpipe", "1f1b-1", "zb-h1"]) {
      const { makespan, busy } = simulate(forwardOnly(generate(name, { devices, microbatches })));
      assert.equal(makespan, microbatches + devices - 1, name);
      assert.deepEqual(busy, Array(devices).fill(microbatches));
    }
  }
});

test("no optimizer runs behind forward passes, and nobody waits for tied gradients", () => {
  const costs = { ...stageCosts([{ f: 2, i: 3, w: 4 }, { f: 2, i: 3, w: 4 }]), tail: () => 100 };
  const schedule = forwardOnly(generate("gpipe", { devices: 2, microbatches: 3 }));
  assert.equal(simulate(schedule, costs).makespan, 2 * (3 + 1));
  const { what } = lower(schedule, { together: true, reduceFrom: (rank) => [1 - rank] });
  assert.equal(what.length, 3, "an activation of each micro-batch, and nothing else");
});

test("a forward pass gives back at its end what it held", () => {
  const schedule = forwardOnly(generate("gpipe", { devices: 2, microbatches: 4 }));
  const { peak, spans } = simulate(schedule);
  assert.deepEqual(peak, [1, 1], "one micro-batch at a time; with backward passes all four");
  for (const { points } of memoryTimeline(schedule, spans)) {
    assert.equal(points[points.length - 1].held.activations, 0);
  }
});

test("forward passes come back from their CSV, with transfers too, and without sums of gradients", () => {
  for (const name of names) {
    const schedule = forwardOnly(generate(name, { devices: 3, microbatches: 6 }));
    for (const transfers of [false, true]) {
      const csv = toCsv(schedule, { transfers });
      assert.deepEqual(fromCsv(csv).actions, schedule.actions, name);
      assert.ok(!csv.includes("REDUCE_GRAD"));
    }
  }
});

test("forward passes are drawn", () => {
  const schedule = forwardOnly(generate("1f1b-1", { devices: 2, microbatches: 2 }));
  assert.match(ganttText(schedule, simulate(schedule), { width: 80, colour: false }), /0.*1/);
});

test("one backward is enough to ask for all of them", () => {
  const half = { name: "half", placement: [0], actions: lists("0F0 0F1 0B1") };
  assert.throws(() => validate(half), /^UserError: Rank 0 never runs the backward of micro-batch 0 on stage 0$/);
});

test("a forward that is missing or there twice is a fault among forward passes too", () => {
  const placement = [0, 1];
  const missing = { name: "missing", placement, actions: lists("0F0 0F1", "1F0 1F0") };
  assert.throws(() => validate(missing), /1F0/);
  const late = { name: "late", placement: [0, 0], actions: lists("1F0 0F0") };
  assert.throws(() => validate(late), /wait/);
});

test("2BP has nothing to split in forward passes", () => {
  const schedule = forwardOnly(generate("gpipe", { devices: 2 }));
  assert.throws(
    () => twoStage(schedule),
    /^UserError: 2BP splits full backwards, and gpipe forward runs forward passes/,
  );
});
