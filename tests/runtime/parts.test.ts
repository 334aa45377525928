import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { batchNorm } from "../../lib/layers/batch_norm.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { linear } from "../../lib/layers/linear.ts";
import { parameter } from "../../lib/layers/parameter.ts";
import { recomputed } from "../../lib/layers/recompute.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { createPipeline, type PipelineOptions } from "../../lib/runtime/pipeline.ts";
import { withRecompute } from "../../lib/runtime/recompute.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { randomBatch, tiny, tinyModel } from "./support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const optimizer = sgd({ learningRate: 0.1 });
const inUse = () => set.devices.map(({ ledger }) => ledger.total());

function refused(options: Partial<PipelineOptions>, message: string | RegExp, model = tinyModel()) {
  const before = inUse();
  assert.throws(() => createPipeline(set, model, { optimizer, ...options }), { name: "UserError", message });
  assert.deepEqual(inUse(), before);
}

test("parts hold each layer of the model once, in order, and none is empty", () => {
  const model = tinyModel(), all = model.layers;
  const cut = (message: string, ...parts: (readonly Layer[])[]) => refused({ parts }, message, model);
  cut("Layer 0 of stage 1 is layer 3 of tiny; layer 2 of tiny must come here", all.slice(0, 2), all.slice(3));
  cut(
    "The parts end with layer 4 of tiny, which has 6: they must hold all, in order",
    all.slice(0, 2),
    all.slice(2, 5),
  );
  cut("Layer 0 of stage 0 is layer 3 of tiny; layer 0 of tiny must come here", all.slice(3), all.slice(0, 3));
  cut("Layer 0 of stage 1 is layer 2 of tiny; layer 3 of tiny must come here", all.slice(0, 3), all.slice(2));
  cut("Layer 3 of stage 1 is layer 5 of tiny; tiny ends before it", all.slice(0, 3), [...all.slice(3), all[5]]);
  cut("Part 1 must be a list of one or more layers, not []", all, []);
  cut("There are 3 parts for the 2 stages of [0, 1]", all.slice(0, 1), all.slice(1, 3), all.slice(3));
  cut("There are 1 parts for the 2 stages of [0, 1]", all);
  refused({ parts: all as never }, "There are 6 parts for the 2 stages of [0, 1]", model);
  const flat = [all[0], all[1]] as never;
  refused({ parts: flat }, "Part 0 must be a list of one or more layers, not an object", model);
});

test("parts of another model, or with a layer of none, are refused", () => {
  const model = tinyModel();
  refused(
    { parts: partition(tinyModel(), 2) },
    "Layer 0 of stage 0 is none of tiny's own layers; layer 0 of tiny must come here",
    model,
  );
  const { layers } = model;
  refused(
    { parts: [layers.slice(0, 2), [linear("extra", 12, 12), ...layers.slice(2)]] },
    "Layer 0 of stage 1 is none of tiny's own layers; layer 2 of tiny must come here",
    model,
  );
});

test("parts may wrap the model's layers, as recomputation does", async () => {
  const model = tinyModel(), batch = randomBatch(tiny, 4), schedule = generate("1f1b-1", { devices: 2 });
  const run = async (parts?: readonly (readonly Layer[])[]) => {
    const pipeline = createPipeline(set, model, { optimizer, parts, seed: 3 });
    const { loss } = await pipeline.step(schedule, batch);
    pipeline.close();
    return loss;
  };
  const parts = partition(model, 2);
  const expected = await run();
  assert.equal(await run(parts), expected);
  assert.equal(await run(parts.map((layers) => layers.map((layer) => recomputed(layer, "both")))), expected);
  assert.equal(await run(parts.map((layers) => layers.map((layer) => ({ ...layer })))), expected);
});

test("the placement gives each stage a rank that there is; a rank without a stage idles", async () => {
  const right = "The placement, a rank for each stage, must be a list of one or more, each a whole number from 0 to 1";
  refused({ placement: [0, 2], parts: partition(tinyModel(), 2) }, `${right}, not [0, 2]`);
  for (const [placement, shown] of [[[0, -1], "[0, -1]"], [[0, 0.5], "[0, 0.5]"], [[0, NaN], "[0, NaN]"]] as const) {
    refused({ placement }, `${right}, not ${shown}`);
  }
  refused({ placement: [] }, "The number of stages must be a whole number, 1 or more, not 0");
  refused({ placement: "01" as never }, `${right}, not "01"`);

  const pipeline = createPipeline(set, tinyModel(), { optimizer, placement: [1] });
  const alone = generate("gpipe", { devices: 1, microbatches: 2 });
  const schedule = { ...alone, devices: 2, placement: [1], actions: [[], alone.actions[0]] };
  assert.ok((await pipeline.step(schedule, randomBatch(tiny, 4))).loss > 0);
  pipeline.close();
});

test("names of parameters and state buffers are unique in a model, and so are layers with parameters", () => {
  const model = tinyModel(), { layers } = model;
  const after = (index: number, extra: Layer, layers: readonly Layer[]) => layers.toSpliced(index + 1, 0, extra);
  const twice = (extra: Layer, message: string) => refused({}, message, { ...model, layers: after(1, extra, layers) });
  twice(layers[1], 'tiny has two parameters or buffers "blocks.0.attention.norm.weight"; names must be unique');
  twice(
    linear("blocks.1.mlp.down", 12, 12),
    'tiny has two parameters or buffers "blocks.1.mlp.down.weight"; names must be unique',
  );
  const network = resnet("r", { block: "basic", blocks: [1], width: 4, stem: "3x3", size: 4, classes: 3 });
  const named = { ...batchNorm("n", 4), parameters: [parameter("bn1.running_mean", [4], "ones")], buffers: [] };
  refused(
    {},
    'r has two parameters or buffers "bn1.running_mean"; names must be unique',
    { ...network, layers: after(0, sequential([named]), network.layers) },
  );
});

test("parameters have whole axes, and tied ones are two of the model's of one shape", () => {
  const model = tinyModel(), { layers } = model;
  const with_ = (extra: Layer) => ({ ...model, layers: [...layers, extra] });
  for (const [width, shown] of [[0, "0"], [2.5, "2.5"], [NaN, "NaN"]] as const) {
    refused(
      {},
      `The shape of "e.weight" of tiny must be a list of one or more, each a whole number, 1 or more, not [19, ${shown}]`,
      with_(linear("e", 19, width)),
    );
  }
  const table = layers[0].parameters[0], head = layers[5].parameters[1];
  const tie = (pair: NonNullable<typeof model.tied>[number], message: string) =>
    refused({}, message, { ...model, tied: [pair] });
  tie([table, parameter("other", [19, 12], "ones")], 'tiny ties "other", which is no parameter of its layers');
  tie(
    [table, table],
    'tiny ties "embedding.weight" [19,12] and "embedding.weight" [19,12]; these must be two, of one shape',
  );
  tie([table, head], 'tiny ties "embedding.weight" [19,12] and "head.weight" [12,19]; these must be two, of one shape');
  const twins = [1, 2, 3].map((layer) => layers[layer].parameters.find(({ shape }) => shape.length > 1)!);
  refused({}, `tiny ties "${twins[0].name}" twice; a parameter has one twin at most`, {
    ...model,
    tied: [[twins[0], twins[2]], [twins[0], twins[2]]],
  });
});

test("partition() cuts into whole numbers of stages, 1 or more", () => {
  for (const stages of [0, -1, 1.5, NaN, undefined as never]) {
    assert.throws(() => partition(tinyModel(), stages), {
      name: "UserError",
      message: `The number of stages must be a whole number, 1 or more, not ${stages}`,
    });
  }
});

test("an unknown recomputation is refused wherever it is given", () => {
  const kinds = '"none", "activations", "derivatives", "both"';
  const wrong = (recompute: unknown, message: string) => refused({ recompute: recompute as never }, message);
  const unknown = (text: string) =>
    `Unknown recomputation ${text}; there are none, activations, derivatives, both, each perhaps with :N for the first N ` +
    "layers of a stage";
  wrong("everything", unknown('"everything"'));
  for (const text of ["both:0", "both:-1", "both:1.5", "both:", ""]) wrong(text, unknown(`"${text}"`));
  wrong(["none", "sometimes"], unknown('"sometimes"'));
  wrong(["none", undefined], unknown("undefined"));
  wrong(["none"], "There are recomputation policies for 1 stages, the pipeline has 2");
  wrong(
    3,
    `What to recompute must be ${kinds}, each perhaps with ":N", a list of these by stage, or a function, not 3`,
  );
  for (const answer of ["derivative", "both:2", undefined]) {
    const shown = answer === undefined ? "undefined" : `"${answer}"`;
    wrong(() => answer, `What a layer recomputes must be one of ${kinds}, not ${shown}`);
  }
  assert.equal(withRecompute(partition(tinyModel(), 2), () => "none").length, 2);
});

test("createPipeline() takes devices and a model, not what stands for them", () => {
  const make = (devices: unknown, model: unknown) => () =>
    createPipeline(devices as never, model as never, { optimizer });
  const wrong = (devices: unknown, model: unknown, message: string) =>
    assert.throws(make(devices, model), { name: "UserError", message });
  const right = "createPipeline: devices must be a DeviceSet, as openDevices() gives, not ";
  wrong(Promise.resolve(set), tinyModel(), `${right}a Promise (await it)`);
  wrong(set.devices, tinyModel(), `${right}[a Device, a Device]`);
  wrong(undefined, tinyModel(), `${right}undefined`);
  wrong(set, "tiny", 'createPipeline: model must be a model, as createModel() returns, not "tiny"');
  wrong(set, undefined, "createPipeline: model must be a model, as createModel() returns, not undefined");
  const model = tinyModel();
  wrong(
    set,
    { ...model, takes: undefined },
    "createPipeline: `takes` of tiny must be a BatchShape: inputs, and vocabulary where inputs are token ids, not undefined",
  );
  wrong(
    set,
    { ...model, takes: { ...model.takes, vocabulary: 0.5 } },
    "`takes` of tiny: vocabulary must be a whole number, 1 or more, not 0.5",
  );
  wrong(
    set,
    { ...model, loss: undefined },
    "createPipeline: the loss of tiny must be a Loss, as crossEntropy() and meanSquaredError() return, not undefined",
  );
});

test("createPipeline() names options that it does not know or cannot take", () => {
  const names =
    "optimizer, placement, replicas, shardOptimizer, parts, seed, precision, lossScale, recompute, sums, budget";
  refused({ precison: "mixed" } as never, `createPipeline: there is no "precison"; there are ${names}`);
  refused({ precision: "half" as never }, 'createPipeline: precision must be one of "f32", "mixed", not "half"');
  for (const seed of [NaN, -1, 0.5]) {
    refused({ seed }, `createPipeline: seed must be a whole number from 0 to 4294967295, not ${seed}`);
  }
  for (const budget of [0, -1, NaN]) {
    refused({ budget }, `createPipeline: budget must be a number of bytes above 0, not ${budget}`);
  }
  const spec = "an OptimizerSpec, as sgd() and adamw() return";
  refused({ optimizer: adamw as never }, `createPipeline: optimizer must be ${spec}, not a function`);
  refused({ optimizer: "adamw" as never }, `createPipeline: optimizer must be ${spec}, not "adamw"`);
});
