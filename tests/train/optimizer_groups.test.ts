import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { linear } from "../../lib/layers/linear.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { type Model, parametersOf } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw, type AdamWOptions, type OptimizerSpec, sgd } from "../../lib/train/optimizers.ts";
import * as reference from "../reference/optimizers.ts";
import { aligned, randomBatch, tinyModel } from "../runtime/support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

/** The tiny model with its head tied to the embedding. */
function model(): Model {
  const model = tinyModel(aligned), blocks = model.layers.slice(0, -1);
  const head = linear("tied_head", aligned.width, aligned.vocabulary, { transposed: true });
  return { ...model, layers: [...blocks, head], tied: [[blocks[0].parameters[0], head.parameters[0]]] };
}

const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const steps = 5;

/**
 * Parameters before and after some steps, and the gradients of each, the steps' own: those of a step on the same batch without an
 * update.
 */
async function train(optimizer: OptimizerSpec, precision: "f32" | "mixed" = "f32") {
  const pipeline = createPipeline(set, model(), { optimizer, precision, seed: 5 });
  const start = await pipeline.parameters();
  const gradients = [];
  for (let step = 0; step < steps; step++) {
    const batch = randomBatch(aligned, 4, step);
    await pipeline.step(schedule, batch, { optimize: false });
    gradients.push(await pipeline.gradients());
    await pipeline.step(schedule, batch);
  }
  const end = await pipeline.parameters();
  pipeline.close();
  return { start, gradients, end };
}

/** The settings that one parameter should have: said again, by name and axes. */
function settingsOf(name: string, axes: number) {
  if (name === "tied_head.weight") return settingsOf("embedding.weight", axes);
  const decay = (weightDecay: number) => axes > 1 ? weightDecay : 0;
  if (name.includes("norm")) return { learningRate: 0.02, weightDecay: 0.5 }; // said for the group: gains decay too
  if (name.startsWith("embedding")) return { learningRate: 0.004, weightDecay: decay(0.1) };
  if (name.endsWith("qkv.weight")) return { learningRate: 0.01, weightDecay: 0 };
  return { learningRate: 0.01, weightDecay: decay(0.1) };
}
const groups: AdamWOptions["groups"] = [
  { match: /norm/g, learningRate: 0.02, weightDecay: 0.5 }, // g: the expression remembers where it was
  { match: (name) => name.startsWith("embedding"), learningRate: 0.004 },
  { match: /qkv|norm/, weightDecay: 0 },
];

for (const precision of ["f32", "mixed"] as const) {
  test(`groups of AdamW are float64's AdamW of each parameter by itself over ${steps} steps, ${precision}`, async (t) => {
    if (precision === "mixed" && !set.devices.every(({ gpu }) => gpu.info.f16)) return t.skip("this device has no f16");
    const { start, gradients, end } = await train(
      adamw({ learningRate: 0.01, weightDecay: 0.1, epsilon: 1e-5, groups }),
      precision,
    );
    for (const { name, shape } of parametersOf(model())) {
      const expected = Float64Array.from(start.get(name)!);
      const state = {
        ...settingsOf(name, shape.length),
        ...{ betas: [0.9, 0.999] as [number, number], epsilon: 1e-5, steps: 0 },
        ...{ mean: new Float64Array(expected.length), square: new Float64Array(expected.length) },
      };
      for (const each of gradients) reference.adamw(expected, each.get(name)!, expected.length, state);
      const moved = Math.max(...expected.map((value, i) => Math.abs(value - start.get(name)![i])));
      end.get(name)!.forEach((value, i) => {
        assert.ok(Math.abs(value - expected[i]) < 2e-4 * moved, `${name}[${i}] is ${value}, expected ${expected[i]}`);
      });
    }
    assert.deepEqual(end.get("tied_head.weight"), end.get("embedding.weight"), "tied parameters stay alike");
  });
}

test("groups of SGD have their own rates, and one with a rate of 0 leaves its parameters bit for bit", async () => {
  const { start, gradients, end } = await train(
    sgd({ learningRate: 0.1, momentum: 0.9, groups: [{ match: /mlp/, learningRate: 0 }, { match: /attention/ }] }),
  );
  for (const [name, before] of start) {
    const expected = Float64Array.from(before), velocity = new Float64Array(before.length);
    const rate = name.includes("mlp") ? 0 : 0.1;
    for (const each of gradients) reference.sgd(expected, velocity, each.get(name)!, rate, 0.9);
    if (rate === 0) assert.deepEqual(end.get(name), before, name);
    const largest = Math.max(...expected.map(Math.abs));
    end.get(name)!.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 1e-5 * largest, `${name}[${i}]`));
  }
});

test("the memory of groups is predicted as it is", async () => {
  const optimizer = adamw({ groups });
  const pipeline = createPipeline(set, model(), { optimizer });
  const { peaks } = await pipeline.step(schedule, randomBatch(aligned, 4));
  pipeline.close();
  const { software, subgroupSize } = set.devices[0].gpu.info;
  const predicted = await predictMemory(model(), schedule, 2, { optimizer, software, subgroupSize });
  for (const [rank, { categories }] of peaks.entries()) {
    for (const category of ["parameters", "gradients", "optimizer"] as const) {
      assert.equal(categories[category], predicted[rank].categories[category], `${category} of rank ${rank}`);
    }
  }
});

test("groups are lists with a match and known settings", () => {
  const refused = (make: () => unknown, message: string) => assert.throws(make, { name: "UserError", message });
  const rate = "a finite number, 0 or more", match = /norm/;
  refused(() => adamw({ groups: {} as never }), "adamw: groups must be a list of groups, not an object");
  refused(
    () => adamw({ groups: [5 as never] }),
    "adamw: groups[0] takes an object with match, learningRate, weightDecay, not 5",
  );
  refused(
    () => adamw({ groups: [{ match: "norm" as never }] }),
    'adamw: groups[0]: match must be a RegExp or a function of a parameter\'s name, not "norm"',
  );
  refused(
    () => adamw({ groups: [{ match }, { match, weightDecay: -1 }] }),
    `adamw: groups[1]: weightDecay must be ${rate}, not -1`,
  );
  refused(
    () => sgd({ learningRate: 1, groups: [{ match, weightDecay: 0 } as never] }),
    'sgd: groups[0]: there is no "weightDecay"; there are match, learningRate',
  );
});

test("a group without a parameter is refused before anything is placed", () => {
  const refused = (groups: AdamWOptions["groups"], message: string) =>
    assert.throws(() => createPipeline(set, model(), { optimizer: adamw({ groups }) }), { name: "UserError", message });
  const names = "embedding.weight, blocks.0.attention.norm.weight, blocks.0.attention.qkv.weight and 10 more";
  refused(
    [{ match: /norm/ }, { match: /nrom/ }],
    `adamw: groups[1], /nrom/, has no parameter: it matches none that is trained; there are ${names}`,
  );
  refused(
    [{ match: /attention/ }, { match: /qkv/ }],
    "adamw: groups[1], /qkv/, has no parameter: the 2 that it matches are in earlier groups, of which the first holds",
  );
  refused(
    [{ match: () => false }],
    `adamw: groups[0], a function, has no parameter: it matches none that is trained; there are ${names}`,
  );
  // A copy goes with its original.
  refused(
    [{ match: /tied_head/ }],
    `adamw: groups[0], /tied_head/, has no parameter: it matches none that is trained; there are ${names}`,
  );
  assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), [0, 0]);
});
