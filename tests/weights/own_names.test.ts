/** Checkpoints of models that are of no family. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { batchNorm } from "../../lib/layers/batch_norm.ts";
import { conv2d } from "../../lib/layers/conv2d.ts";
import { frozen } from "../../lib/layers/frozen.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import { linear } from "../../lib/layers/linear.ts";
import { averagePool } from "../../lib/layers/pool.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { meanSquaredError } from "../../lib/losses/mean_squared_error.ts";
import { defineModel } from "../../lib/models/define_model.ts";
import { type Model, parametersOf } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { loadWeights, saveWeights } from "../../lib/weights/checkpoint.ts";
import { openTensorFile } from "../../lib/weights/safetensors.ts";
import { tinyModel } from "../runtime/support.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-own-names-"));
const path = join(folder, "model.safetensors");
const optimizer = sgd({ learningRate: 0.1 });
let set: DeviceSet, single: DeviceSet;
before(async () => [set, single] = [await openDevices(2), await openDevices(1)]);
after(() => {
  [set, single].forEach((each) => each.close());
  rmSync(folder, { recursive: true });
});

test("a model of one's own is stored under its own names and shapes, whatever its cut and what is frozen", async () => {
  const layers = () => [
    conv2d("stem", 2, 4, { size: 3 }),
    sequential([batchNorm("norm", 4), averagePool()]),
    sequential([linear("mix.in", 4, 6, { bias: true }), gelu()]),
    linear("mix.out", 6, 4, { transposed: true }),
    frozen(linear("tail", 4, 6)),
  ];
  const made = (name: string, parts = layers()) =>
    defineModel({ name, inputs: { shape: [5, 5, 2] }, layers: parts, loss: meanSquaredError() });
  const two = createPipeline(set, made("mine"), { optimizer, seed: 4 });
  const batch = {
    samples: 4,
    inputs: Float32Array.from({ length: 200 }, (_, i) => Math.sin(i)),
    targets: new Float32Array(24),
  };
  await two.step(generate("1f1b-1", { devices: 2 }), batch); // which moves the running statistics
  await saveWeights(two, path);
  const file = openTensorFile(path);
  const stored = [...two.model.layers.flatMap((layer) => [...layer.parameters, ...layer.buffers ?? []])];
  assert.deepEqual(
    [...file.tensors].map(([name, { shape }]) => [name, [...shape]]).sort(),
    stored.map(({ name, shape }) => [name, [...shape]]).sort(),
  );
  const values = await two.parameters(), state = await two.state();
  for (const [name, array] of [...values, ...state]) assert.deepEqual(file.read(name), array, name);
  file.close();
  const one = createPipeline(single, made("mine"), { optimizer, seed: 9 });
  assert.notDeepEqual(await one.parameters(), values);
  loadWeights(one, path);
  assert.deepEqual(await one.parameters(), values);
  assert.deepEqual(await one.state(), state);
  const other = createPipeline(set, made("other", [...layers().slice(0, -1), linear("last", 4, 6)]), { optimizer });
  assert.throws(() => loadWeights(other, path), {
    name: "UserError",
    message: `${path} does not fit other: it lacks "last.weight"; the model has no "tail.weight"`,
  });
  for (const pipeline of [one, two, other]) pipeline.close();
});

test("a model of a family with a parameter more is one's own: its names are ours, and a tied copy has none", async () => {
  const original = tinyModel(), width = 12, vocabulary = 19;
  const more = linear("more", width, width), copy = linear("copy", width, vocabulary, { transposed: true });
  const model: Model = {
    ...original,
    layers: [...original.layers.slice(0, -1), more, copy],
    tied: [[original.layers[0].parameters[0], copy.parameters[0]]],
  };
  const pipeline = createPipeline(set, model, { optimizer });
  await saveWeights(pipeline, path);
  const file = openTensorFile(path);
  const names = parametersOf(model).map(({ name }) => name).filter((name) => name !== "copy.weight");
  assert.deepEqual([...file.tensors.keys()].sort(), names.sort());
  file.close();
  loadWeights(pipeline, path);
  pipeline.close();
});

test("in mixed precision frozen parameters are saved as the F16 that they are held in, trained ones as F32", async (t) => {
  if (!set.devices.every(({ gpu }) => gpu.info.f16)) return t.skip("this device has no f16");
  const model = defineModel({
    name: "half-frozen",
    inputs: { shape: [3] },
    layers: [frozen(linear("base", 3, 5, { bias: true })), linear("head", 5, 1)], // an odd number of halves
    loss: meanSquaredError(),
  });
  const pipeline = createPipeline(set, model, { optimizer, precision: "mixed" });
  await saveWeights(pipeline, path);
  const file = openTensorFile(path);
  const types = Object.fromEntries([...file.tensors].map(([name, { dtype }]) => [name, dtype]));
  assert.deepEqual(types, { "head.weight": "F32", "base.weight": "F16", "base.bias": "F16" });
  const values = await pipeline.parameters();
  for (const [name, array] of values) assert.deepEqual(file.read(name), array, name);
  file.close();
  loadWeights(pipeline, path);
  assert.deepEqual(await pipeline.parameters(), values);
  pipeline.close();
});
