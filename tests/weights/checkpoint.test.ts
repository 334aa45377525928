import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { bert } from "../../lib/models/bert.ts";
import { llama } from "../../lib/models/llama.ts";
import { mamba } from "../../lib/models/mamba.ts";
import { type Model, parametersOf } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sizeOf } from "../../lib/tensor.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { loadWeights, saveWeights } from "../../lib/weights/checkpoint.ts";
import { buffersOf, referenceModel } from "../../lib/weights/families.ts";
import { fromReference, toReference } from "../../lib/weights/reference.ts";
import { type NamedTensor, openTensorFile, writeTensorFile } from "../../lib/weights/safetensors.ts";
import { aligned, randomBatch, tiny, tinyModel } from "../runtime/support.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-checkpoint-"));
const path = join(folder, "model.safetensors");
const optimizer = sgd({ learningRate: 0.1 });
let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => {
  set.close();
  rmSync(folder, { recursive: true });
});

const tinyBert = () => {
  const sizes = { vocabulary: 9, mask: 8, width: 6, blocks: 2, heads: 2, hidden: 10 };
  return bert("tiny BERT", { ...sizes, positions: 5, types: 2, length: 4, dropout: 0 });
};

const tinyMamba = () =>
  mamba("tiny Mamba", { vocabulary: 9, width: 6, blocks: 2, state: 4, expand: 2, rank: 4, length: 4 });
const tinyResnet = () =>
  resnet("tiny ResNet", { block: "bottleneck", blocks: [1, 2], width: 2, stem: "7x7", size: 16, classes: 3 });

const models: Model[] = [
  tinyModel(),
  llama("tiny grouped LLaMa", { ...tiny, width: 24, heads: 4, kvHeads: 2 }),
  llama("tiny LLaMa with wide heads and biases", { ...tiny, heads: 4, kvHeads: 2, headSize: 8, qkvBias: true }),
  tinyBert(),
  tinyMamba(),
  tinyResnet(),
];

for (const model of models) {
  test(`every element of ${model.name} has one place in the reference's tensors, and comes back from it`, () => {
    const { references } = referenceModel(model);
    const copies = new Set(model.tied?.map(([, copy]) => copy));
    assert.equal(new Set(references.map(({ name }) => name)).size, references.length);
    const stored = [...parametersOf(model).filter((parameter) => !copies.has(parameter)), ...buffersOf(model)];
    for (const parameter of stored) {
      const ours = Float32Array.from({ length: sizeOf(parameter.shape) }, (_, i) => i + 1);
      const back = new Float32Array(ours.length);
      for (const reference of references.filter((each) => each.parameter === parameter.name)) {
        const before = back.slice();
        fromReference(reference, toReference(reference, ours), back);
        const written = back.filter((value, i) => value !== before[i]).length;
        assert.equal(written, sizeOf(reference.shape), `${reference.name} shares no element with another`);
      }
      assert.deepEqual(back, ours, parameter.name);
    }
  });
}

test("a projection's parts are transposed and cut apart as the reference has them", () => {
  const model = tinyModel(); // width 12
  const { references } = referenceModel(model);
  const key = references.find(({ name }) => name === "model.layers.1.self_attn.k_proj.weight")!;
  assert.deepEqual(key.shape, [12, 12]);
  const ours = Float32Array.from({ length: 12 * 36 }, (_, i) => i);
  const theirs = toReference(key, ours);
  for (const [output, input] of [[0, 0], [3, 7], [11, 2]]) {
    assert.equal(theirs[output * 12 + input], ours[input * 36 + 12 + output]);
  }
});

test("a checkpoint saved after training gives the same loss in the same model cut into other stages", async () => {
  const batch = randomBatch(tiny, 4);
  const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
  const model = tinyModel();
  const first = createPipeline(set, model, { optimizer, seed: 1 });
  for (let step = 0; step < 3; step++) await first.step(schedule, batch);
  const { loss } = await first.step(schedule, batch, { optimize: false });
  const trained = await first.parameters();
  await saveWeights(first, path);
  first.close();

  const other = tinyModel();
  const parts = [other.layers.slice(0, 1), other.layers.slice(1)];
  assert.notEqual(parts[0].length, first.parts[0].length);
  const second = createPipeline(set, other, { optimizer, seed: 2, parts });
  assert.notEqual((await second.step(schedule, batch, { optimize: false })).loss, loss);
  loadWeights(second, path);
  assert.deepEqual(await second.parameters(), trained);
  assert.equal((await second.step(schedule, batch, { optimize: false })).loss, loss);
  second.close();

  const interleaved = generate("interleaved-1f1b", { devices: 2, microbatches: 4 });
  const third = createPipeline(set, tinyModel(), { optimizer, seed: 3, placement: interleaved.placement });
  loadWeights(third, path);
  const again = await third.step(interleaved, batch, { optimize: false });
  assert.ok(Math.abs(again.loss - loss) < 1e-6 * loss); // four micro-batches instead of two: the sum rounds otherwise
  third.close();
});

test("a checkpoint of a model in mixed precision holds its f32 masters, byte for byte, and is f32's as well", async (t) => {
  if (!set.devices.every(({ gpu }) => gpu.info.f16)) return t.skip("this device has no f16");
  const batch = randomBatch(aligned, 4);
  const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
  const first = createPipeline(set, tinyModel(aligned), { optimizer, seed: 1, precision: "mixed" });
  for (let step = 0; step < 3; step++) await first.step(schedule, batch);
  const { loss } = await first.step(schedule, batch, { optimize: false });
  const trained = await first.parameters();
  await saveWeights(first, path);
  first.close();
  for (const precision of ["mixed", "f32"] as const) {
    const second = createPipeline(set, tinyModel(aligned), { optimizer, seed: 2, precision });
    loadWeights(second, path);
    assert.deepEqual(await second.parameters(), trained);
    const again = await second.step(schedule, batch, { optimize: false });
    assert.ok(Math.abs(again.loss - loss) <= (precision === "mixed" ? 0 : 1e-3 * loss), `${precision}: ${again.loss}`);
    second.close();
  }
});

test("a checkpoint of every family comes back byte for byte from the same model cut elsewhere, running statistics too", async () => {
  const copy = join(folder, "copy.safetensors");
  for (const make of [tinyModel, tinyBert, tinyMamba, tinyResnet]) {
    const first = createPipeline(set, make(), { optimizer, seed: 1 });
    const state = [...await first.state()].map(([name, values]) => [name, values.map((_, i) => i + 0.5)] as const);
    first.setState(new Map(state));
    await saveWeights(first, path);
    first.close();
    const other = make();
    const second = createPipeline(set, other, {
      optimizer,
      seed: 2,
      parts: [other.layers.slice(0, 1), other.layers.slice(1)],
    });
    loadWeights(second, path);
    await saveWeights(second, copy);
    second.close();
    assert.ok(readFileSync(copy).equals(readFileSync(path)), other.name);
  }
});

/** The tensors of a file, to be changed and written again. */
function tensorsOf(path: string): Map<string, NamedTensor> {
  const file = openTensorFile(path);
  const tensors = new Map([...file.tensors].map(([name, { shape }]) => {
    const values = file.read(name);
    return [name, { name, shape, values: () => values }];
  }));
  file.close();
  return tensors;
}

test("a checkpoint that does not fit the model is refused before anything changes", async () => {
  const pipeline = createPipeline(set, tinyModel(), { optimizer, seed: 1 });
  await saveWeights(pipeline, path);
  const untouched = await pipeline.parameters();
  const good = [...tensorsOf(path).values()];
  const changed = join(folder, "changed.safetensors");
  const one = (name: string): NamedTensor => ({
    name,
    shape: [1],
    values: () => Float32Array.of(1),
  });
  const without = (...names: string[]) => good.filter(({ name }) => !names.some((part) => name.includes(part)));
  const wide = (tensor: NamedTensor): NamedTensor => ({ ...tensor, shape: [tensor.shape[0], 1, tensor.shape[1]] });
  const cases: [NamedTensor[], string][] = [
    [without("lm_head"), `${changed} does not fit tiny: it lacks "lm_head.weight"`],
    [
      without("self_attn"),
      `${changed} does not fit tiny: it lacks "model.layers.0.self_attn.q_proj.weight", ` +
      `"model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight" and 5 more`,
    ],
    [[...good, one("lm_head.bias")], `${changed} does not fit tiny: the model has no "lm_head.bias"`],
    [
      good.map((tensor) => tensor.name === "lm_head.weight" ? wide(tensor) : tensor),
      `${changed} does not fit tiny: "lm_head.weight" is [19,1,12] instead of [19,12]`,
    ],
    [
      [...without("model.norm"), one("norm"), one("counter")],
      `${changed} does not fit tiny: it lacks "model.norm.weight"; the model has no "norm", "counter"`,
    ],
  ];
  for (const [tensors, message] of cases) {
    writeTensorFile(changed, tensors);
    assert.throws(() => loadWeights(pipeline, changed), { name: "UserError", message });
  }
  writeTensorFile(changed, good);
  const text = readFileSync(changed, "latin1").replace(/("lm_head.weight":{"dtype":)"F32"/, '$1"I32"');
  writeFileSync(changed, text, "latin1");
  assert.throws(() => loadWeights(pipeline, changed), {
    name: "UserError",
    message: `${changed}: tensor "lm_head.weight" is I32; what can be read is F32, F16, BF16`,
  });
  writeFileSync(changed, "noise".repeat(1000));
  assert.throws(() => loadWeights(pipeline, changed), /^UserError: .*changed.safetensors: not a safetensors file/);
  assert.deepEqual(await pipeline.parameters(), untouched);

  const inverse = { ...one("model.layers.0.self_attn.rotary_emb.inv_freq") };
  writeTensorFile(changed, [...good, inverse]); // what older checkpoints have besides does no harm
  loadWeights(pipeline, changed);
  pipeline.close();
});

test("BERT checkpoints may have old names, heads for other tasks and the tied table twice, if both copies are equal", async () => {
  const pipeline = createPipeline(set, tinyBert(), { optimizer, seed: 1 });
  await saveWeights(pipeline, path);
  const saved = await pipeline.parameters();
  pipeline.close();
  const good = [...tensorsOf(path).values()];
  assert.ok(!good.some(({ name }) => name === "cls.predictions.decoder.weight")); // written once, as transformers does
  const table = good.find(({ name }) => name === "bert.embeddings.word_embeddings.weight")!;
  const old = (name: string) =>
    name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
  const published: NamedTensor[] = [
    ...good.map((tensor) => ({ ...tensor, name: old(tensor.name) })),
    { name: "bert.pooler.dense.bias", shape: [1], values: () => Float32Array.of(1) },
  ];
  const copy = join(folder, "published.safetensors");
  const decoder = { ...table, name: "cls.predictions.decoder.weight" };
  writeTensorFile(copy, [...published, decoder]);
  const other = createPipeline(set, tinyBert(), { optimizer, seed: 2 });
  loadWeights(other, copy);
  assert.deepEqual(await other.parameters(), saved);
  const negative = (table.values() as Float32Array).map((value) => -value);
  writeTensorFile(copy, [...published, { ...decoder, values: () => negative }]);
  assert.throws(() => loadWeights(other, copy), {
    name: "UserError",
    message: `${copy}: "bert.embeddings.word_embeddings.weight" and "cls.predictions.decoder.weight" ` +
      "are one parameter, but not equal",
  });
  assert.deepEqual(await other.parameters(), saved);
  other.close();
});

test("a pipeline takes new running statistics for all its layers or for none, and they are of no other pipeline of the model", async () => {
  const model = tinyResnet();
  const [pipeline, other] = [1, 2].map((seed) => createPipeline(set, model, { optimizer, seed }));
  const before = await pipeline.state();
  const fresh = new Map([...before].map(([name, array]) => [name, array.map((_, i) => i + 2)]));
  const refused = (change: (values: Map<string, Float32Array>) => void, message: string) => {
    const changed = new Map(fresh);
    change(changed);
    assert.throws(() => pipeline.setState(changed), { name: "UserError", message });
  };
  const name = "bn1.running_var";
  refused((values) => values.delete(name), `There are no values for state buffer "${name}" of tiny ResNet`);
  refused((values) => values.set("nose", new Float32Array(1)), 'tiny ResNet has no state buffer "nose"');
  refused(
    (values) => values.set(name, new Float32Array(1)),
    `State buffer "${name}" is [${before.get(name)!.length}], which 1 values do not fill`,
  );
  assert.throws(() => pipeline.setState([] as never), /^UserError: New state buffers must be a Map of Float32Arrays/);
  assert.deepEqual(await pipeline.state(), before);
  pipeline.setState(fresh);
  assert.deepEqual([await pipeline.state(), await other.state()], [fresh, before]);
  [pipeline, other].forEach((each) => each.close());
});

test("a pipeline takes new values for all its parameters or for none", async () => {
  const pipeline = createPipeline(set, tinyModel(), { optimizer });
  const values = await pipeline.parameters();
  const doubled = new Map([...values].map(([name, array]) => [name, array.map((value) => 2 * value)]));
  const refused = (change: (values: Map<string, Float32Array>) => void, message: string) => {
    const changed = new Map(doubled);
    change(changed);
    assert.throws(() => pipeline.setParameters(changed), { name: "UserError", message });
  };
  refused((values) => values.delete("head.weight"), 'There are no values for parameter "head.weight" of tiny');
  refused((values) => values.set("nose.weight", new Float32Array(1)), 'tiny has no parameter "nose.weight"');
  refused(
    (values) => values.set("head.weight", new Float32Array(19)),
    'Parameter "head.weight" is [12,19], which 19 values do not fill',
  );
  for (const [other, shown] of [[new Float64Array(12 * 19), "a Float64Array"], [[1, 2], "[1, 2]"]] as const) {
    refused(
      (values) => values.set("head.weight", other as never),
      `The values of parameter "head.weight" must be a Float32Array, not ${shown}`,
    );
  }
  for (const [other, shown] of [[Object.fromEntries(doubled), "an object"], [undefined, "undefined"]]) {
    assert.throws(() => pipeline.setParameters(other as never), {
      name: "UserError",
      message: `New parameters must be a Map of Float32Arrays by name, not ${shown}`,
    });
  }
  assert.deepEqual(await pipeline.parameters(), values);
  pipeline.setParameters(doubled);
  assert.deepEqual(await pipeline.parameters(), doubled);
  pipeline.close();
});

test("what is no path is refused", async () => {
  const pipeline = createPipeline(set, tinyModel(), { optimizer });
  const refused = { name: "UserError", message: "A path must be a string, not undefined" };
  assert.throws(() => loadWeights(pipeline, undefined as never), refused);
  await assert.rejects(saveWeights(pipeline, undefined as never), refused);
  pipeline.close();
});
