import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { sourceFor } from "../../bench/data.ts";
import { UserError } from "../../lib/errors.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Recompute } from "../../lib/layers/recompute.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import type { RankPeak } from "../../lib/runtime/rank.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { formatRecompute, parseRecompute, withRecompute } from "../../lib/runtime/recompute.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { recomputeAhead } from "../../lib/schedules/transforms/recompute_ahead.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const microbatches = 4;
const based = (name: string) => generate(name, { devices: 2, microbatches });
const schedules: readonly Schedule[] = [
  based("1f1b-1"),
  twoStage(based("1f1b-2"), { policy: "fill" }),
  twoStage(based("gpipe"), { policy: "end", width: 2 }),
  // The same ahead of the gradient: of whole backwards, right before each I, and two at once long before.
  recomputeAhead(based("1f1b-1")),
  twoStage(recomputeAhead(based("1f1b-2")), { policy: "fill" }),
  earlier(twoStage(based("gpipe"), { policy: "end", width: 2 })),
];
/** What runs with each kind of recomputation: nothing runs ahead unless I recomputes, and the same comes twice. */
const scheduled = (recompute: Recompute) => {
  if (/activations|both/.test(recompute)) return schedules;
  const plain = schedules.slice(0, 3);
  return recompute === "none" ? [...plain, ...plain] : [...plain, schedules[3]];
};

/** The schedule with each R two actions before its I, where they are behind its F. */
function earlier(schedule: Schedule): Schedule {
  const ahead = recomputeAhead(schedule);
  const actions = ahead.actions.map((given) => {
    const list = [...given];
    for (const action of given.filter(({ kind }) => kind === "R")) {
      const at = list.indexOf(action), [microbatch] = action.microbatches;
      const after = list.findIndex(({ kind, microbatches }) => kind === "F" && microbatches[0] === microbatch);
      list.splice(at, 1);
      list.splice(Math.max(after + 1, at - 2), 0, action);
    }
    return list;
  });
  return { ...ahead, actions };
}

const names = ["llama-tiny", "bert-tiny", "mamba-tiny", "resnet-tiny"];
const policies = ["none", "activations", "derivatives", "both"] as const;
const optimizer = sgd({ learningRate: 0.1 });
const fill = schedules[1], mid = twoStage(based("1f1b-2"), { policy: "mid" });

/** What each rank needed in whole steps, by model, what is computed again and schedule. */
const measured = new Map<string, readonly RankPeak[]>();

for (const name of names) {
  test(`${name} has the same loss, gradients and running statistics, to the bit, whatever is computed again`, async () => {
    const batch = await sourceFor(createModel(name), undefined, 3).source.next(microbatches);
    const results = new Map<Recompute, Awaited<ReturnType<typeof run>>>();
    for (const recompute of policies) results.set(recompute, await run(recompute));
    async function run(recompute: Recompute) {
      const model = createModel(name);
      const pipeline = createPipeline(set, model, { optimizer, seed: 2, recompute });
      const outcomes = [];
      for (const schedule of scheduled(recompute)) {
        pipeline.clearGradients();
        const held = set.devices.map(({ ledger }) => ledger.total());
        const { loss } = await pipeline.step(schedule, batch, { optimize: false });
        assert.deepEqual(
          set.devices.map(({ ledger }) => ledger.total()),
          held,
          `${schedule.name} leaves memory behind`,
        );
        const statistics = await pipeline.state();
        outcomes.push({ loss, gradients: await pipeline.gradients(), statistics });
      }
      if (recompute !== "none") {
        for (const schedule of recompute === "both" ? [fill, mid] : [fill]) {
          const { peaks } = await pipeline.step(schedule, batch);
          measured.set(`${name}, ${recompute}, ${schedule.policy}`, peaks);
        }
      }
      pipeline.close();
      return outcomes;
    }
    for (const [recompute, outcomes] of results) {
      for (const [index, schedule] of scheduled(recompute).entries()) {
        const expected = results.get("none")![index];
        const what = `${recompute}, ${schedule.name}, width ${sizesOf(schedule).width}`;
        assert.equal(outcomes[index].loss, expected.loss, what);
        assert.deepEqual(outcomes[index].gradients, expected.gradients, what);
        assert.deepEqual(outcomes[index].statistics, expected.statistics, what);
      }
    }
  });
}

test("predicted peaks are those of a step that computes again, and lie below those of one that keeps", async () => {
  const { software, subgroupSize } = set.devices[0].gpu.info;
  for (const name of names) {
    for (const schedule of [fill, mid]) {
      const options = { optimizer, software, subgroupSize };
      const kept = await predictMemory(createModel(name), schedule, 1, options);
      for (const recompute of schedule === fill ? policies.slice(1) : ["both"] as const) {
        const predicted = await predictMemory(createModel(name), schedule, 1, { ...options, recompute });
        const peaks = measured.get(`${name}, ${recompute}, ${schedule.policy}`)!;
        for (const [rank, { total, categories }] of peaks.entries()) {
          const what = `${name}, ${schedule.policy}, ${recompute}, rank ${rank}`;
          // A staging buffer comes back when the other rank gets to it.
          const settled = (peak: RankPeak) => peak.total - peak.categories.transfer;
          const inFlight = ({ categories }: RankPeak) => categories.activations + categories.derivatives;
          assert.ok(
            Math.abs(settled(predicted[rank]) - settled(peaks[rank])) <= 0.02 * total,
            `${what}: ${predicted[rank].total} predicted, ${total} measured`,
          );
          for (const category of ["activations", "derivatives", "workspace"] as const) {
            assert.equal(predicted[rank].categories[category], categories[category], `${what}: ${category}`);
          }
          // In the last stage I follows F: no other micro-batch's activations are there to be saved.
          if (rank === 1 && recompute === "activations") continue;
          assert.ok(inFlight(predicted[rank]) < 0.95 * inFlight(kept[rank]), `${what}: as much as without`);
        }
      }
    }
  }
});

test("what is recomputed ahead is held from then on: predicted to the byte", async () => {
  const { software, subgroupSize } = set.devices[0].gpu.info;
  for (const name of names) {
    const early = earlier(twoStage(based("gpipe"), { policy: "end" }));
    for (const [schedule, recompute] of [[recomputeAhead(fill), "activations"], [early, "both"]] as const) {
      const what = `${name}, ${recompute}, ${schedule.name}`, model = createModel(name);
      const pipeline = createPipeline(set, model, { optimizer, seed: 2, recompute });
      const batch = await sourceFor(model, undefined, 3).source.next(microbatches);
      await pipeline.step(schedule, batch);
      const { peaks } = await pipeline.step(schedule, batch);
      pipeline.close();
      const options = { optimizer, software, subgroupSize, recompute };
      const predicted = await predictMemory(createModel(name), schedule, 1, options);
      for (const [rank, { total, categories }] of peaks.entries()) {
        assert.ok(Math.abs(predicted[rank].total - total) <= 0.02 * total, `${what}, rank ${rank}`);
        for (const category of ["activations", "derivatives", "workspace"] as const) {
          assert.equal(
            predicted[rank].categories[category],
            categories[category],
            `${what}, rank ${rank}: ${category}`,
          );
        }
      }
    }
  }
});

test("what to compute again is read from text, for all layers or the first N that gain by it", () => {
  for (const text of ["none", "activations", "derivatives:3", "both:12"]) assert.equal(parseRecompute(text), text);
  for (const text of ["", "all", "both:", "both:0", "both:-1", "both:1.5", "both:two", "Both", "both 2", "both:2:3"]) {
    assert.throws(() => parseRecompute(text), UserError, text);
  }
  assert.throws(() => parseRecompute("all"), /"all"; there are none, activations, derivatives, both/);
});

test("a policy wraps the layers it names: the first N, those of a stage, or one by one; none that gain nothing", () => {
  const { layers } = createModel("llama-tiny"); // the embedding keeps ids and dy alone
  const parts = [layers.slice(0, 5), layers.slice(5)];
  const wrapped = (policy: Parameters<typeof withRecompute>[1]) =>
    withRecompute(parts, policy).map((stage, at) =>
      stage.map((layer, index) => Number(layer !== parts[at][index])).join("")
    );
  assert.deepEqual(wrapped(undefined), ["00000", "00000"]);
  assert.deepEqual(wrapped("both"), ["01111", "11111"]);
  assert.deepEqual(wrapped("activations:2"), ["01100", "11000"]);
  assert.deepEqual(wrapped("derivatives:99"), ["01111", "11111"]);
  assert.deepEqual(wrapped(["both:1", "none"]), ["01000", "00000"]);
  assert.deepEqual(wrapped((stage, layer, count) => stage === 1 && layer === count - 1 ? "both" : "none"), [
    "00000",
    "00001",
  ]);
  assert.throws(() => wrapped(["both"]), /policies for 1 stages, the pipeline has 2/);
  assert.deepEqual([formatRecompute(), formatRecompute(["both:1", "none"]), formatRecompute(() => "both")], [
    "none",
    "both:1/none",
    "by layer",
  ]);
});
