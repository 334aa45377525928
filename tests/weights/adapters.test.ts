/** Adapters in files: PEFT's folders, checkpoints with adapters and without, and merged ones. */
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { linear } from "../../lib/layers/linear.ts";
import { lora } from "../../lib/layers/lora.ts";
import { meanSquaredError } from "../../lib/losses/mean_squared_error.ts";
import { bert, bertConfigurations } from "../../lib/models/bert.ts";
import { defineModel } from "../../lib/models/define_model.ts";
import { loraModel } from "../../lib/models/lora_model.ts";
import { mamba } from "../../lib/models/mamba.ts";
import type { Model } from "../../lib/models/model.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { loadAdapters, saveAdapters } from "../../lib/weights/adapters.ts";
import { loadWeights, saveWeights } from "../../lib/weights/checkpoint.ts";
import { referenceModel } from "../../lib/weights/families.ts";
import { modelFrom } from "../../lib/weights/model_from.ts";
import { openTensorFile } from "../../lib/weights/safetensors.ts";
import { readFixture } from "../models/fixture.ts";
import { randomBatch, tiny, tinyModel } from "../runtime/support.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";

const scratch = mkdtempSync(join(tmpdir(), "twobp-adapters-"));
const fixture = readFixture("lora").folder, theirs = join(fixture, "adapter");
const targets = /attention\.(q|v|out)$|mlp\.down$/;
const plain = () => modelFrom(fixture, { length: 10 });
const adapted = (options: object = {}) => loraModel(plain(), { rank: 3, alpha: 5, targets, ...options });
const placed = (model: Model, seed = 0): Pipeline =>
  createPipeline(set, model, { optimizer: sgd({ learningRate: 0.1 }), seed });
let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => {
  set.close();
  rmSync(scratch, { recursive: true });
});

/** Names, shapes and values of the tensors in a file. */
function tensorsOf(path: string) {
  const file = openTensorFile(path);
  const tensors = [...file.tensors].map(([name, { shape }]) => [name, [...shape], file.read(name)] as const);
  file.close();
  return tensors.sort(([a], [b]) => a < b ? -1 : 1);
}

test("PEFT's adapters are loaded, and saved again under the same names, in the same shapes, with the same values", async () => {
  const pipeline = placed(adapted());
  loadAdapters(pipeline, theirs);
  const ours = join(scratch, "a folder", "ours");
  await saveAdapters(pipeline, ours);
  assert.deepEqual(
    tensorsOf(join(ours, "adapter_model.safetensors")),
    tensorsOf(join(theirs, "adapter_model.safetensors")),
  );
  const said = JSON.parse(readFileSync(join(ours, "adapter_config.json"), "utf8"));
  assert.deepEqual([said.peft_type, said.task_type, said.r, said.lora_alpha, said.bias], [
    ...["LORA", "CAUSAL_LM", 3, 5, "none"],
  ]);
  const modules = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj"];
  assert.deepEqual(said.target_modules, [0, 1].flatMap((block) => modules.map((m) => `model.layers.${block}.${m}`)));
  pipeline.close();
});

test("a checkpoint of the model without adapters is loaded beneath them, and they stay what they are", async () => {
  const pipeline = placed(adapted()), before = await pipeline.parameters();
  loadWeights(pipeline, fixture);
  const now = await pipeline.parameters();
  for (const [name, values] of now) {
    assert.equal(values.every((value, i) => value === before.get(name)![i]), name.includes(".lora_"), name);
  }
  loadAdapters(pipeline, theirs);
  const after = await pipeline.parameters();
  for (const [name, values] of after) {
    assert.equal(values.every((value, i) => value === now.get(name)![i]), !name.includes(".lora_"), name);
  }
  const unknown = new Map([["blocks.0.attention.q.lora_C.weight", new Float32Array(1)]]);
  for (const options of [{ partial: true }, {}]) {
    assert.throws(() => pipeline.setParameters(unknown, options), { name: "UserError", message: /has no parameter/ });
  }
  assert.throws(() => pipeline.setParameters(new Map([...now].slice(1))), { message: /^There are no values for/ });
  pipeline.close();
});

test("merged weights are those that PEFT merges, and load into the model without adapters", async () => {
  const pipeline = placed(adapted()), path = join(scratch, "merged.safetensors");
  loadWeights(pipeline, fixture);
  loadAdapters(pipeline, theirs);
  const values = await pipeline.parameters();
  await saveWeights(pipeline, path, { merged: true });
  assert.deepEqual(await pipeline.parameters(), values, "the pipeline's own stay apart");
  const expected = tensorsOf(join(fixture, "merged.safetensors")), actual = tensorsOf(path);
  assert.deepEqual(actual.map(([name, shape]) => [name, shape]), expected.map(([name, shape]) => [name, shape]));
  for (const [index, [name, , merged]] of actual.entries()) {
    merged.forEach((value, i) => assert.ok(Math.abs(value - expected[index][2][i]) <= 1e-6, `${name}[${i}]`));
  }
  const whole = placed(plain());
  loadWeights(whole, path);
  const { batch } = readFixture("lora"), schedule = generate("1f1b-1", { devices: 2, microbatches: 2 });
  const losses = [await pipeline.step(schedule, batch), await whole.step(schedule, batch)].map(({ loss }) => loss);
  assert.ok(Math.abs(losses[0] - losses[1]) < 1e-5, `${losses}`);
  await assert.rejects(saveWeights(whole, path, { merged: true }), {
    name: "UserError",
    message: `saveWeights: ${whole.model.name} has no adapters to be merged`,
  });
  [pipeline, whole].forEach((each) => each.close());
});

test("all of a model with adapters goes through one file, which another alpha, rank or target does not take", async () => {
  const one = placed(adapted(), 1), other = placed(adapted(), 2), path = join(scratch, "whole.safetensors");
  loadAdapters(one, theirs);
  await saveWeights(one, path);
  loadWeights(other, path);
  assert.deepEqual(await other.parameters(), await one.parameters());
  const refused = async (model: Model, message: RegExp) => {
    const pipeline = placed(model), before = await pipeline.parameters();
    assert.throws(() => loadWeights(pipeline, path), { name: "UserError", message });
    assert.deepEqual(await pipeline.parameters(), before);
    pipeline.close();
  };
  await refused(
    adapted({ alpha: 6 }),
    /is of another model: alpha of blocks\.0\.attention\.q is 5 there, 6 in \S+\+lora$/,
  );
  await refused(adapted({ rank: 2 }), /lora_A\.weight" is \[3,16\] instead of \[2,16\]/);
  await refused(
    adapted({ targets: /attention\.q$/ }),
    /the model has no "base_model\.model\.model\.layers\.0\.self_attn/,
  );
  await refused(adapted({ targets: /./ }), /alpha of blocks\.0\.attention\.k is not said there, 5 in/);
  await refused(plain(), /the model has no "base_model\.model\./);
  [one, other].forEach((each) => each.close());
});

test("adapters of BERT, Mamba and one's own have the reference's modules, or the projections' own names", () => {
  const modulesOf = (model: Model) =>
    referenceModel(model).adapters.flatMap(({ name }) =>
      /^base_model\.model\.(.*)\.lora_A\.weight$/.exec(name)?.[1] ?? []
    );
  const encoder = bert("b", { ...bertConfigurations["bert-tiny"], blocks: 1 });
  const all = { rank: 2, targets: /./ };
  assert.deepEqual(modulesOf(loraModel(encoder, all)), [
    ...["query", "key", "value"].map((part) => `bert.encoder.layer.0.attention.self.${part}`),
    ...["attention.output.dense", "intermediate.dense", "output.dense"].map((part) => `bert.encoder.layer.0.${part}`),
    ...["cls.predictions.transform.dense", "cls.predictions.decoder"],
  ]);
  const scan = mamba("m", {
    ...{ vocabulary: 9, width: 8, blocks: 1, expand: 2, state: 4, rank: 2, length: 4 },
  });
  assert.deepEqual(modulesOf(loraModel(scan, all)).slice(0, 2), [
    "backbone.layers.0.mixer.in_proj",
    "backbone.layers.0.mixer.out_proj",
  ]);
  const parts = ["a", "b"].map((name) => ({ name, outputs: 2 }));
  const mine = defineModel({
    ...{ name: "mine", inputs: { shape: [3] }, loss: meanSquaredError() },
    layers: [lora(linear("two", 3, 4, { parts }), { rank: 1 }), linear("last", 4, 1)],
  });
  assert.deepEqual(modulesOf(mine), ["a", "b"]);
});

test("a tied head can have an adapter, which is merged into nothing but a head of its own", async () => {
  const model = loraModel(tinyModel({ ...tiny, tied: true }), { rank: 2, targets: /^head$/ });
  const pipeline = placed(model);
  const schedule = generate("1f1b-1", { devices: 2, microbatches: 2 });
  await pipeline.step(schedule, randomBatch(tiny, 4));
  await saveAdapters(pipeline, join(scratch, "tied"));
  assert.deepEqual(tensorsOf(join(scratch, "tied", "adapter_model.safetensors")).map(([name]) => name), [
    "base_model.model.lm_head.lora_A.weight",
    "base_model.model.lm_head.lora_B.weight",
  ]);
  const message = /^saveWeights: the adapter of head is beside head\.weight, which is tied to embedding\.weight/;
  await assert.rejects(saveWeights(pipeline, join(scratch, "tied.safetensors"), { merged: true }), {
    name: "UserError",
    message,
  });
  pipeline.close();
});

test("folders that are of other adapters are refused in a line, and nothing has changed", async () => {
  const pipeline = placed(adapted()), before = await pipeline.parameters();
  const folder = join(scratch, "wrong"), said = JSON.parse(readFileSync(join(theirs, "adapter_config.json"), "utf8"));
  cpSync(theirs, folder, { recursive: true });
  const refused = (change: object, message: RegExp) => {
    writeFileSync(join(folder, "adapter_config.json"), JSON.stringify({ ...said, ...change }));
    assert.throws(() => loadAdapters(pipeline, folder), { name: "UserError", message });
  };
  refused({ lora_alpha: 16 }, /is of other adapters than those of \S+\+lora: lora_alpha is 16, not 5$/);
  refused({ lora_alpha: null }, /lora_alpha is 8, not 5$/);
  refused({ r: 4, use_rslora: true }, /r is 4, not 3; use_rslora is true, not null$/);
  refused({ peft_type: "IA3" }, /peft_type is "IA3", not "LORA"$/);
  refused({ peft_type: undefined }, /peft_type is not said, not "LORA"$/);
  refused({ bias: "all" }, /bias is "all", not "none"$/);
  refused({ rank_pattern: { q_proj: 8 } }, /rank_pattern is \{"q_proj":8\}, not null$/);
  refused({ init_lora_weights: "pissa" }, /init_lora_weights is "pissa", which goes with weights of another base$/);
  writeFileSync(join(folder, "adapter_config.json"), JSON.stringify(said));
  rmSync(join(folder, "adapter_model.safetensors"));
  assert.throws(() => loadAdapters(pipeline, folder), { name: "UserError", message: /^There is no file / });
  assert.throws(() => loadAdapters(pipeline, scratch), {
    name: "UserError",
    message: /^There is no file .*adapter_config/,
  });
  assert.deepEqual(await pipeline.parameters(), before);
  pipeline.close();
  const fewer = placed(adapted({ targets: /attention\.q$/ }));
  assert.throws(() => loadAdapters(fewer, theirs), {
    name: "UserError",
    message: /the model has no "base_model\.model/,
  });
  fewer.close();
  const bare = placed(plain());
  assert.throws(() => loadAdapters(bare, theirs), {
    name: "UserError",
    message:
      /^loadAdapters: \S+ has no adapters, see lora\(\) and loraModel\(\); its parameters are embedding\.weight, /,
  });
  bare.close();
});

test("adapters of several ranks do not go into one folder", async () => {
  const layers = [lora(linear("a", 3, 4), { rank: 1 }), lora(linear("b", 4, 2), { rank: 2 })];
  const mixed = placed(defineModel({ name: "mixed", inputs: { shape: [3] }, loss: meanSquaredError(), layers }));
  await assert.rejects(saveAdapters(mixed, join(scratch, "mixed")), {
    name: "UserError",
    message:
      "saveAdapters: a folder has adapters of one rank and alpha, and a has rank 1 and alpha 1, b has rank 2 and alpha 2",
  });
  mixed.close();
});
