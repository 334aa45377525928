/** Frozen parameters through a pipeline. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { linear } from "../../lib/layers/linear.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { frozenModel } from "../../lib/models/frozen_model.ts";
import { type Model, parametersOf } from "../../lib/models/model.ts";
import { stageWork } from "../../lib/planning/stage_work.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { ganttText } from "../../lib/report/gantt_text.ts";
import { runTimeline } from "../../lib/report/run_timeline.ts";
import { chromeTrace } from "../../lib/report/trace.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { stageCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { aligned, assertSameGradients, randomBatch, tinyModel } from "./support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const batch = randomBatch(aligned, 8);
const optimizer = adamw({ learningRate: 0.01 });
const model = () => tinyModel(aligned);
const names = parametersOf(model()).map(({ name }) => name);
const choices: Record<string, (name: string) => boolean> = {
  "the first stage and a part of the second": (name) => /embedding|blocks\.0|blocks\.1\.attention/.test(name),
  "all but the norms": (name) => !name.includes("norm"),
  "the head": (name) => name.startsWith("head"),
  everything: () => true,
};

/** W's that take one micro-batch, all at once, and whole backwards. */
function schedules(): Schedule[] {
  return ["naive", "1f1b-2"].flatMap((name) => {
    const base = generate(name, { devices: 2, microbatches: 4 });
    return [base, twoStage(base), twoStage(base, { policy: "end", width: 4 })];
  });
}

for (const [what, isFrozen] of Object.entries(choices)) {
  for (const precision of ["f32", "mixed"] as const) {
    test(`with ${what} frozen the others' gradients are what they were, and it does not move by a bit, ${precision}`, async (t) => {
      if (precision === "mixed" && !set.devices.every(({ gpu }) => gpu.info.f16)) {
        return t.skip("this device has no f16");
      }
      const placed = (model: Model) => createPipeline(set, model, { optimizer, precision, seed: 1 });
      const plain = placed(model()), part = placed(frozenModel(model(), isFrozen));
      const before = await part.parameters();
      for (const [name, values] of await plain.parameters()) {
        const held = precision === "mixed" && isFrozen(name) ? fromHalf(toHalf(values)) : values;
        assert.deepEqual(before.get(name), held, `${name} starts alike`);
      }
      for (const schedule of schedules()) {
        const results = [];
        for (const pipeline of [plain, part]) {
          const { loss, intervals } = await pipeline.step(schedule, batch, { optimize: false });
          results.push({ loss, gradients: await pipeline.gradients() });
          assert.ok(!intervals || intervals.flat().every(({ start, end }) => end >= start && start > 0));
        }
        const [expected, actual] = results;
        assert.equal(actual.loss, expected.loss);
        for (const name of names.filter(isFrozen)) expected.gradients.delete(name);
        assertSameGradients(actual.gradients, expected.gradients, 1e-6, schedule.name);
      }
      for (const schedule of schedules()) await part.step(schedule, batch);
      for (const [name, values] of await part.parameters()) {
        if (isFrozen(name)) assert.deepEqual(values, before.get(name), name);
        else assert.notDeepEqual(values, before.get(name), name);
      }
      plain.close();
      part.close();
      assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), [0, 0]);
    });
  }

  test(`with ${what} frozen the ledger holds what is predicted, and no gradient or moment of it`, async () => {
    const { software, subgroupSize } = set.devices[0].gpu.info;
    const schedule = twoStage(generate("1f1b-2", { devices: 2, microbatches: 4 }));
    const peaksOf = async (model: Model) => {
      const pipeline = createPipeline(set, model, { optimizer });
      await pipeline.step(schedule, batch);
      const { peaks } = await pipeline.step(schedule, batch);
      pipeline.close();
      return peaks.map(({ categories }) => categories);
    };
    const still = frozenModel(model(), isFrozen);
    const [all, less] = [await peaksOf(model()), await peaksOf(still)];
    const predicted = await predictMemory(still, schedule, 2, { optimizer, software, subgroupSize });
    for (const [rank, part] of partition(still, 2).entries()) {
      for (const category of ["parameters", "gradients", "optimizer", "activations", "derivatives"] as const) {
        assert.equal(less[rank][category], predicted[rank].categories[category], `${category} of rank ${rank}`);
      }
      const trains = part.some((layer) => layer.parameters.some(({ name }) => !isFrozen(name)));
      if (!trains) {
        assert.equal(less[rank].optimizer, 0);
        // Of the gradients there is the loss's, on the last rank.
        assert.equal(less[rank].gradients, rank === 1 ? 256 : 0);
      }
    }
    const sum = (bytes: typeof all, category: "gradients" | "optimizer" | "parameters") =>
      bytes.reduce((sum, each) => sum + each[category], 0);
    assert.equal(sum(less, "parameters"), sum(all, "parameters"));
    assert.ok(sum(less, "gradients") < sum(all, "gradients"));
    assert.ok(sum(less, "optimizer") < sum(all, "optimizer"));
  });
}

test("the W of a stage that trains nothing is not submitted, has no length, and costs nothing", async () => {
  const isFrozen = (name: string) => /embedding|blocks\.0/.test(name);
  const parts = (model: Model) => [model.layers.slice(0, 3), model.layers.slice(3)];
  const schedule = twoStage(generate("gpipe", { devices: 2, microbatches: 4 }), { policy: "every:1" });
  const counts = [];
  for (const each of [model(), frozenModel(model(), isFrozen)]) {
    const pipeline = createPipeline(set, each, { optimizer, parts: parts(each) });
    await pipeline.step(schedule, batch);
    let submissions = 0;
    const { queue } = set.devices[0].gpu, { submit } = queue;
    queue.submit = (commands) => (submissions++, submit.call(queue, commands));
    const result = await pipeline.step(schedule, batch), { intervals } = result;
    queue.submit = submit;
    const timeline = runTimeline(schedule, "real", result);
    if (timeline) assert.ok(chromeTrace(schedule, timeline).length > 0 && ganttText(schedule, timeline).length > 0);
    pipeline.close();
    counts.push(submissions);
    const lengths = intervals?.[0].flatMap(({ start, end }, at) =>
      schedule.actions[0][at]?.kind === "W" ? [end - start] : []
    );
    if (each.layers[0].parameters[0].trainable === false) assert.deepEqual(lengths, lengths && [0, 0, 0, 0]);
    else assert.ok(!lengths || lengths.every((length) => length > 0));
  }
  assert.equal(counts[0] - counts[1], 4);
  const still = frozenModel(model(), isFrozen);
  const [first, second] = stageWork(still, { parts: parts(still), samples: 2 });
  assert.equal(first.w, 0);
  assert.ok(Number(second.w) > 0);
  // Worked out by hand: rank 1 waits for F, rank 0 for all that rank 1 does, and then has its I and nothing else.
  const costs = stageCosts([{ f: 1, i: 1, w: 0 }, { f: 1, i: 1, w: 1 }]);
  const naive = twoStage(generate("naive", { devices: 2 }), { policy: "every:1" });
  assert.equal(simulate(naive, costs).makespan, 4);
});

test("partition() sees that frozen layers have less to do: the stage that has them gets more", () => {
  const cut = (model: Model) => partition(model, 2).map((layers) => layers.length);
  const deep = tinyModel({ ...aligned, blocks: 8 });
  const [plain] = cut(deep), [more] = cut(frozenModel(deep, (name) => /embedding|blocks\.[0-4]/.test(name)));
  assert.ok(more > plain, `${plain} layers became ${more}`);
});

/** The tiny model with its head tied to the embedding. */
function tiedModel(trainable = true): Model {
  const original = model(), blocks = original.layers.slice(0, -1);
  const head = linear("tied_head", aligned.width, aligned.vocabulary, { transposed: true, trainable });
  return { ...original, layers: [...blocks, head], tied: [[blocks[0].parameters[0], head.parameters[0]]] };
}

test("tied parameters are frozen together or not at all", async () => {
  const frozen = frozenModel(tiedModel(), (name) => name === "embedding.weight");
  const still = parametersOf(frozen).filter(({ trainable }) => trainable === false).map(({ name }) => name);
  assert.deepEqual(still, ["embedding.weight", "tied_head.weight"]);
  const pipeline = createPipeline(set, frozen, { optimizer: sgd({ learningRate: 0.5 }), seed: 2 });
  const before = await pipeline.parameters();
  for (const schedule of schedules()) await pipeline.step(schedule, batch);
  const end = await pipeline.parameters();
  for (const name of still) assert.deepEqual(end.get(name), before.get("embedding.weight"));
  assert.ok(still.every((name) => !pipeline.end.reduceFrom?.(0).length && end.has(name)), "there is nothing to add up");
  pipeline.close();
  assert.throws(() => createPipeline(set, tiedModel(false), { optimizer }), {
    name: "UserError",
    message: 'tiny ties "tied_head.weight", which is frozen, and "embedding.weight", which is not: freeze both or none',
  });
});

test("frozen parameters are set and read like the others; in mixed precision what f16 cannot hold is refused", async (t) => {
  const isFrozen = (name: string) => name.startsWith("blocks.0");
  const pipelineOf = (precision: "f32" | "mixed") =>
    createPipeline(set, frozenModel(model(), isFrozen), { optimizer, precision });
  const fresh = new Map(
    parametersOf(model()).map(({ name, shape }) => [
      name,
      Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i)),
    ]),
  );
  const plain = pipelineOf("f32");
  plain.setParameters(fresh);
  assert.deepEqual(await plain.parameters(), fresh);
  plain.close();
  if (!set.devices.every(({ gpu }) => gpu.info.f16)) return t.skip("this device has no f16");
  const mixed = pipelineOf("mixed");
  mixed.setParameters(fresh);
  const held = await mixed.parameters();
  for (const [name, values] of fresh) {
    assert.deepEqual(held.get(name), isFrozen(name) ? fromHalf(toHalf(values)) : values, name);
  }
  const name = "blocks.0.mlp.down.weight", large = new Map(fresh).set(name, fresh.get(name)!.map((x) => 70_000 + x));
  large.set("embedding.weight", fresh.get("embedding.weight")!.map((x) => 2 * x));
  assert.throws(() => mixed.setParameters(large), {
    name: "UserError",
    message:
      /^Frozen parameter "blocks\.0\.mlp\.down\.weight" is held in f16 in mixed precision, which cannot hold its 70000$/,
  });
  assert.deepEqual(await mixed.parameters(), held, "nothing has changed");
  mixed.close();
});

test("frozenModel() refuses names that no parameter has", () => {
  assert.throws(() => frozenModel(model(), (name) => name.startsWith("block.")), {
    name: "UserError",
    message: "frozenModel: no parameter of tiny is meant; it has embedding.weight, blocks.0.attention.norm.weight, " +
      "blocks.0.attention.qkv.weight ...",
  });
});
