/** Optimizers in pipelines: the same training on any partition, memory as predicted, and nothing of a step that fails. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { blankBatch, dryPipeline, predictMemory } from "../../lib/measure/memory.ts";
import { stageMemories } from "../../lib/measure/stage_memory.ts";
import { bert } from "../../lib/models/bert.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { muon } from "../../lib/train/muon.ts";
import { lion, type OptimizerSpec, sgd } from "../../lib/train/optimizers.ts";
import { aligned, deep, randomBatch, tinyModel } from "./support.ts";

let one: DeviceSet, two: DeviceSet;
before(async () => {
  [one, two] = [await openDevices(1), await openDevices(2)];
});
after(() => [one, two].forEach((set) => set.close()));

const specs: [string, OptimizerSpec][] = [
  ["lion", lion({ learningRate: 1e-3, weightDecay: 0.1, groups: [{ match: /norm/, learningRate: 1e-4 }] })],
  ["muon", muon({ learningRate: 0.01, others: { match: /embedding|head/, learningRate: 0.01 } })],
];

for (const [name, optimizer] of specs) {
  test(`${name}() trains a model alike on one rank and on two, clipped and at other rates`, async () => {
    const run = async (set: DeviceSet) => {
      const pipeline = createPipeline(set, tinyModel(aligned), { optimizer, seed: 3 });
      const schedule = twoStage(generate("1f1b-1", { devices: set.devices.length, microbatches: 2 }));
      const losses = [];
      for (let step = 0; step < 4; step++) {
        losses.push(
          (await pipeline.step(schedule, randomBatch(aligned, 4, 7), { clip: 0.5, rate: 1 / (step + 1) })).loss,
        );
      }
      const parameters = await pipeline.parameters();
      pipeline.close();
      return { losses, parameters };
    };
    const [alone, both] = [await run(one), await run(two)];
    assert.ok(alone.losses[3] < alone.losses[0]);
    for (const [step, loss] of alone.losses.entries()) assert.ok(Math.abs(both.losses[step] - loss) < 1e-4 * loss);
    if (name === "lion") return; // a sign that turns is a whole step
    for (const [parameter, values] of alone.parameters) {
      both.parameters.get(parameter)!.forEach((value, i) =>
        assert.ok(Math.abs(value - values[i]) < 1e-3, `${parameter}[${i}]: ${value}, ${values[i]}`)
      );
    }
  });

  test(`the memory of ${name}() is as predicted, to the byte, and so is that of its stages, of several on a rank too`, async () => {
    const samples = 2, model = () => tinyModel(deep), { info } = two.devices[0].gpu;
    for (const schedule of [twoStage(generate("1f1b-1", { devices: 2 })), generate("zb-v", { devices: 2 })]) {
      const { placement } = schedule, shape = { samples, optimizer, placement };
      const stages = await stageMemories(model(), { ...shape, width: 1 });
      const dry = dryPipeline(model(), 2, { ...shape });
      const microbatches = schedule.actions[0].filter(({ kind, stage }) => kind === "F" && stage === 0).length;
      const batch = blankBatch(model(), samples * microbatches);
      const needed = (await dry.step(schedule, batch)).peaks.map((peak) => peak.needed);
      dry.close();
      assert.deepEqual(peakMemory(schedule, (stage) => stages[stage]), needed, schedule.name);
      const pipeline = createPipeline(two, model(), { optimizer, placement });
      await pipeline.step(schedule, batch);
      const { peaks } = await pipeline.step(schedule, batch);
      const predicted = await predictMemory(model(), schedule, samples, {
        ...{ optimizer, software: info.software, subgroupSize: info.subgroupSize },
      });
      for (const [rank, { categories }] of peaks.entries()) {
        const { transfer: _, ...own } = categories, { transfer: __, ...theirs } = predicted[rank].categories;
        assert.deepEqual(own, theirs, `${schedule.name}, rank ${rank}`);
      }
      pipeline.close();
    }
  });

  test(`a step of ${name}() that fails has never happened`, async () => {
    let isFaulty = false;
    const fragile = (layer: Layer): Layer => ({
      ...layer,
      backwardInput(dx, dy, saved) {
        if (isFaulty && dy.device.activity === "0I1") throw new Error("a fault");
        layer.backwardInput(dx, dy, saved);
      },
    });
    const plain = tinyModel(aligned), schedule = twoStage(generate("1f1b-1", { devices: 2 }));
    const run = async (failing: boolean) => {
      const model = { ...plain, layers: plain.layers.map(fragile) };
      const pipeline = createPipeline(two, model, { optimizer, seed: 3 });
      for (let step = 0; step < 4; step++) {
        isFaulty = failing && step % 2 === 1;
        const batch = randomBatch(aligned, 4, step);
        if (isFaulty) await assert.rejects(pipeline.step(schedule, batch), /a fault/);
        isFaulty = false;
        await pipeline.step(schedule, batch, { rate: 1 / (1 + step) });
      }
      const parameters = await pipeline.parameters();
      pipeline.close();
      return parameters;
    };
    assert.deepEqual(await run(true), await run(false));
    assert.deepEqual(two.devices.map(({ ledger }) => ledger.total()), [0, 0]);
  });
}

test("muon() refuses tied matrices, and takes them where AdamW moves them", () => {
  const model = bert("bert", {
    ...{ vocabulary: 19, mask: 18, width: 12, blocks: 2, heads: 2, hidden: 10, positions: 9, types: 2, length: 7 },
    dropout: 0,
  });
  assert.throws(
    () => createPipeline(two, model, { optimizer: muon() }),
    /^UserError: muon: "embeddings.token.weight" is tied, and its copies would part: leave it to AdamW/,
  );
  createPipeline(two, model, { optimizer: muon({ others: { match: /embeddings|head/ } }) }).close();
  createPipeline(two, model, { optimizer: sgd({ learningRate: 0.1 }) }).close();
});
