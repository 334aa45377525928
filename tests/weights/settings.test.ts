import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { bert } from "../../lib/models/bert.ts";
import { llama, type LlamaConfiguration } from "../../lib/models/llama.ts";
import { mamba } from "../../lib/models/mamba.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { loadWeights, saveWeights } from "../../lib/weights/checkpoint.ts";
import { type NamedTensor, openTensorFile, writeTensorFile } from "../../lib/weights/safetensors.ts";
import { openCheckpoint } from "../../lib/weights/shards.ts";
import { randomBatch } from "../runtime/support.ts";
import { llamaLoss } from "../reference/llama.ts";

const shards = fileURLToPath(new URL("../fixtures/llama_bf16", import.meta.url));
const optimizer = sgd({ learningRate: 0.1 });
let set: DeviceSet;
let folder: string;
before(async () => {
  set = await openDevices(1);
});
after(() => set.close());
beforeEach(() => folder = mkdtempSync(join(tmpdir(), "twobp-settings-")));
afterEach(() => rmSync(folder, { recursive: true }));

const sizes: LlamaConfiguration = { vocabulary: 19, width: 16, blocks: 2, heads: 2, hidden: 16, length: 8 };
const tinyBert = (epsilon?: number) =>
  bert("b", {
    ...{ vocabulary: 9, mask: 8, width: 6, blocks: 1, heads: 2, hidden: 10, positions: 5, types: 2, length: 4 },
    ...{ dropout: 0, ...epsilon ? { epsilon } : {} },
  });
const tinyMamba = (epsilon?: number) =>
  mamba("m", {
    ...{ vocabulary: 9, width: 6, blocks: 1, state: 4, expand: 2, rank: 4, length: 4 },
    ...epsilon ? { epsilon } : {},
  });
const tinyResnet = (epsilon?: number) =>
  resnet("r", {
    ...{ block: "basic", blocks: [1], width: 2, stem: "3x3", size: 8, classes: 3 },
    ...epsilon ? { epsilon } : {},
  });

async function withPipeline(model: Model, run: (pipeline: Pipeline) => Promise<void> | void) {
  const pipeline = createPipeline(set, model, { optimizer, seed: 1 });
  try {
    await run(pipeline);
  } finally {
    pipeline.close();
  }
}

/** Fails unless the checkpoint is refused with this message, and no parameter has changed. */
async function refuses(model: Model, path: string, message: string) {
  await withPipeline(model, async (pipeline) => {
    const untouched = await pipeline.parameters();
    assert.throws(() => loadWeights(pipeline, path), { name: "UserError", message });
    assert.deepEqual(await pipeline.parameters(), untouched);
  });
}

const loads = (model: Model, path: string) => withPipeline(model, (pipeline) => loadWeights(pipeline, path));

test("a config.json beside the shards that says other constants is refused with both values, one that says the same loads", async () => {
  cpSync(shards, folder, { recursive: true });
  const config = join(folder, "config.json");
  const say = (said: unknown) => writeFileSync(config, JSON.stringify(said));
  const complete = { model_type: "llama", rms_norm_eps: 1e-5, num_attention_heads: 2, num_key_value_heads: 2 };
  const cases: [unknown, string][] = [
    [{ rms_norm_eps: 1e-6 }, "rms_norm_eps is 0.000001 there, 0.00001 in t (epsilon)"],
    [{ ...complete, rms_norm_eps: undefined }, "rms_norm_eps is 0.000001 there by default, 0.00001 in t (epsilon)"],
    [{ ...complete, rope_theta: 500_000 }, "rope_theta is 500000 there, 10000 in t (ropeTheta)"],
    [
      { ...complete, rope_parameters: { rope_type: "default", rope_theta: 5e5 } },
      "rope_parameters.rope_theta is 500000 there, 10000 in t (ropeTheta)",
    ],
    [
      { ...complete, rope_theta: 5e5, rope_scaling: { rope_type: "llama3", factor: 32 } },
      "rope_theta is 500000 there, 10000 in t (ropeTheta); " +
      'rope_scaling.rope_type is "llama3" there, "default" in t (ropeScaling)',
    ],
    [{ ...complete, tie_word_embeddings: true }, "tie_word_embeddings is true there, false in t (tied)"],
    [{ ...complete, num_attention_heads: 4 }, "num_attention_heads is 4 there, 2 in t (heads)"],
    [{ ...complete, hidden_act: "gelu" }, 'hidden_act is "gelu" there, "silu" in t'],
    [{ ...complete, model_type: "gemma" }, 'model_type is "gemma" there, "llama" or "mistral" or "qwen2" in t'],
    [{ ...complete, model_type: ["llama"] }, 'model_type is ["llama"] there, "llama" or "mistral" or "qwen2" in t'],
    [{ ...complete, model_type: "mistral" }, "sliding_window is 4096 there by default, null in t"],
    [{ ...complete, sliding_window: 8 }, "sliding_window is 8 there, null in t"],
    [
      { ...complete, model_type: "qwen2", use_sliding_window: true },
      "use_sliding_window is true there, false in t",
    ],
    [{ ...complete, head_dim: 4 }, "head_dim is 4 there, 8 in t (headSize)"],
    [{ ...complete, mlp_bias: true }, "mlp_bias is true there, false in t"],
    [
      { ...complete, rope_scaling: { type: "yarn" } },
      'rope_scaling.type is "yarn" there, "default" in t (ropeScaling)',
    ],
    [{ ...complete, partial_rotary_factor: 0.5 }, "partial_rotary_factor is 0.5 there, 1 in t"],
    [{ ...complete, quantization_config: { bits: 4 } }, 'quantization_config is {"bits":4} there, null in t'],
    [{ ...complete, rms_norm_eps: "1e-5" }, 'rms_norm_eps is "1e-5" there, 0.00001 in t (epsilon)'],
  ];
  for (const [said, message] of cases) {
    say(said);
    for (const path of [folder, join(folder, "model.safetensors.index.json")]) {
      await refuses(llama("t", sizes), path, `${config} is of another model: ${message}`);
    }
  }
  say({ ...complete, rope_theta: 10_000, rope_parameters: { rope_theta: 5e5 } });
  await refuses(
    llama("t", sizes),
    folder,
    `${config}: rope_theta, which is 10000, must be the same as rope_parameters.rope_theta, which is 500000`,
  );
  say({ ...complete, rms_norm_eps: Array(1000).fill("\u202e") });
  await withPipeline(llama("t", sizes), (pipeline) => {
    assert.throws(() => loadWeights(pipeline, folder), (error: Error) => {
      assert.equal(error.name, "UserError");
      assert.ok(error.message.length < 1500 && !error.message.includes("\u202e"), error.message);
      return true;
    });
  });
  for (
    const [text, message] of [["[]", "the configuration is not an object"], ["{", "the configuration is not JSON"]]
  ) {
    writeFileSync(config, text);
    await refuses(llama("t", sizes), folder, `${config}: ${message}`);
  }
  const good = [
    complete,
    { ...complete, rms_norm_eps: 9.999999747378752e-6 }, // 1e-5 as f32
    { ...complete, rope_theta: 10_000.0, rope_scaling: null, tie_word_embeddings: false, hidden_act: "silu" },
    { ...complete, rope_parameters: { rope_theta: 10_000, rope_type: "default" } },
    { ...complete, num_key_value_heads: null },
    { ...complete, model_type: "mistral", sliding_window: null, head_dim: 8 },
    { ...complete, model_type: "qwen2", sliding_window: 4096, use_sliding_window: false, attention_dropout: 0.1 },
    { ...complete, rope_theta: 1e4, rope_parameters: { rope_theta: 1e4 }, partial_rotary_factor: 1, head_dim: null },
    { tasks: {}, compilerOptions: {} }, // a config.json of something else
  ];
  for (const said of good) {
    say(said);
    await loads(llama("t", sizes), folder);
  }
  say({ ...complete, rms_norm_eps: 1e-6, rope_theta: 5e5 });
  await loads(llama("t", { ...sizes, epsilon: 1e-6, ropeTheta: 5e5 }), folder);
});

test("the rotation of a checkpoint must be the model's, in either spelling", async () => {
  cpSync(shards, folder, { recursive: true });
  const config = join(folder, "config.json");
  const scaling = { factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalLength: 16 };
  const scaled = llama("t", { ...sizes, ropeTheta: 5e5, ropeScaling: scaling });
  const theirs = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  for (const name of ["rope_scaling", "rope_parameters"]) {
    const say = (fields: object) => {
      const rope = { ...theirs, original_max_position_embeddings: 16, ...fields };
      const heads = { num_attention_heads: 2, num_key_value_heads: 2 };
      const there = { model_type: "llama", rms_norm_eps: 1e-5, ...heads, rope_theta: 5e5, [name]: rope };
      writeFileSync(config, JSON.stringify(there));
    };
    say({});
    await loads(scaled, folder);
    await refuses(
      llama("t", { ...sizes, ropeTheta: 5e5 }),
      folder,
      `${config} is of another model: ${name}.rope_type is "llama3" there, "default" in t (ropeScaling)`,
    );
    for (
      const [field, value, message] of [
        ["rope_type", "default", '"default" there, "llama3" in t (ropeScaling)'],
        ["factor", 32, "32 there, 8 in t (ropeScaling.factor)"],
        ["low_freq_factor", 2, "2 there, 1 in t (ropeScaling.lowFrequencyFactor)"],
        ["high_freq_factor", 8, "8 there, 4 in t (ropeScaling.highFrequencyFactor)"],
        ["original_max_position_embeddings", 8, "8 there, 16 in t (ropeScaling.originalLength)"],
      ]
    ) {
      say({ [field]: value });
      await refuses(scaled, folder, `${config} is of another model: ${name}.${field} is ${message}`);
    }
  }
});

test("the constants of BERT, Mamba and ResNet are compared too", async () => {
  const config = join(folder, "config.json"), path = join(folder, "model.safetensors");
  const cases: [(epsilon?: number) => Model, unknown, unknown, string][] = [
    [tinyBert, { model_type: "bert", num_attention_heads: 2 }, {
      model_type: "bert",
      num_attention_heads: 2,
      layer_norm_eps: 1e-5,
    }, "layer_norm_eps is 0.00001 there, 1e-12 in b (epsilon)"],
    [
      tinyBert,
      { hidden_act: "gelu" },
      { hidden_act: "gelu_new" },
      'hidden_act is "gelu_new" there, "gelu" in b',
    ],
    [
      tinyMamba,
      { d_model: 6, rms_norm: true },
      { d_model: 6, rms_norm: false },
      "rms_norm is false there, true in m",
    ],
    [
      tinyMamba,
      { model_type: "mamba" },
      { model_type: "mamba", layer_norm_epsilon: 1e-6 },
      "layer_norm_epsilon is 0.000001 there, 0.00001 in m (epsilon)",
    ],
    [
      tinyBert,
      { model_type: "bert", num_attention_heads: 2 },
      { model_type: "bert" },
      "num_attention_heads is 12 there by default, 2 in b (heads)",
    ],
    [tinyResnet, { architecture: "resnet50" }, { bn_eps: 1e-3 }, "bn_eps is 0.001 there, 0.00001 in r (epsilon)"],
  ];
  for (const [make, right, wrong, message] of cases) {
    await withPipeline(make(), (pipeline) => saveWeights(pipeline, path));
    writeFileSync(config, JSON.stringify(right));
    await loads(make(), path);
    writeFileSync(config, JSON.stringify(wrong));
    await refuses(make(), path, `${config} is of another model: ${message}`);
  }
});

test("a file of ours remembers the constants of its model", async () => {
  const path = join(folder, "x.safetensors");
  const makers: [(epsilon?: number) => Model, string][] = [
    [(epsilon = 1e-5) => llama("l", { ...sizes, epsilon }), "rms_norm_eps is 0.01 there, 0.00001 in l (epsilon)"],
    [tinyBert, "layer_norm_eps is 0.01 there, 1e-12 in b (epsilon)"],
    [tinyMamba, "layer_norm_epsilon is 0.01 there, 0.00001 in m (epsilon)"],
    [tinyResnet, "bn_eps is 0.01 there, 0.00001 in r (epsilon)"],
  ];
  for (const [make, message] of makers) {
    await withPipeline(make(0.01), (pipeline) => saveWeights(pipeline, path));
    await loads(make(0.01), path);
    await refuses(make(), path, `${path} is of another model: ${message}`);
  }
  const theta = llama("l", { ...sizes, ropeTheta: 5e5, heads: 4 });
  await withPipeline(theta, (pipeline) => saveWeights(pipeline, path));
  const message = "rope_theta is 500000 there, 10000 in l (ropeTheta); num_attention_heads is 4 there, 2 in l (heads)";
  await refuses(
    llama("l", sizes),
    path,
    `${path} is of another model: ${message}; num_key_value_heads is 4 there, 2 in l (kvHeads); ` +
      "head_dim is 4 there, 8 in l (headSize)",
  );
  const ropeScaling = { factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalLength: 16 };
  const all = { ...sizes, headSize: 4, ropeScaling, qkvBias: true, tied: true };
  await withPipeline(llama("l", all), (pipeline) => saveWeights(pipeline, path));
  await loads(llama("l", all), path);
  const differing: [Partial<LlamaConfiguration>, string][] = [
    [{ tied: false }, "tie_word_embeddings is true there, false in l (tied)"],
    [{ ropeScaling: undefined }, 'rope_scaling.rope_type is "llama3" there, "default" in l (ropeScaling)'],
    [
      { ropeScaling: { ...ropeScaling, factor: 2 } },
      "rope_scaling.factor is 8 there, 2 in l (ropeScaling.factor)",
    ],
  ];
  for (const [fields, message] of differing) {
    await refuses(llama("l", { ...all, ...fields }), path, `${path} is of another model: ${message}`);
  }
  await withPipeline(llama("l", { ...all, ropeScaling: undefined }), (pipeline) => saveWeights(pipeline, path));
  const unscaled = 'rope_scaling.rope_type is "default" there, "llama3" in l (ropeScaling)';
  await refuses(llama("l", all), path, `${path} is of another model: ${unscaled}`);
  // What is no JSON there is said to be none.
  const file = openTensorFile(path);
  const tensors = [...file.tensors].map(([name, { shape }]) => ({ name, shape, values: () => file.read(name) }));
  writeTensorFile(join(folder, "y.safetensors"), tensors, { twobp: "{" });
  file.close();
  await refuses(theta, join(folder, "y.safetensors"), `${join(folder, "y.safetensors")}: its metadata is not JSON`);
});

/** The tensors of the shards, and those of a file that has been made of them with some changes. */
function tensorsOf(path: string): Map<string, NamedTensor> {
  const file = openCheckpoint(path);
  const tensors = new Map([...file.tensors].map(([name, { shape }]) => {
    const values = file.read(name);
    return [name, { name, shape, values: () => values }];
  }));
  file.close();
  return tensors;
}

test("a checkpoint without lm_head, as of Llama 3.2, loads into a tied model, and has its loss", async () => {
  const tensors = tensorsOf(shards);
  const head = tensors.get("lm_head.weight")!, table = tensors.get("model.embed_tokens.weight")!;
  tensors.delete("lm_head.weight");
  const path = join(folder, "model.safetensors");
  writeTensorFile(path, [...tensors.values()]);
  writeFileSync(join(folder, "config.json"), JSON.stringify({ rms_norm_eps: 1e-5, tie_word_embeddings: true }));
  const configuration = { ...sizes, tied: true };
  const batch = randomBatch(configuration, 2);
  await withPipeline(llama("tied", configuration), async (pipeline) => {
    loadWeights(pipeline, folder);
    const parameters = await pipeline.parameters();
    assert.deepEqual(parameters.get("embedding.weight"), table.values());
    assert.deepEqual(parameters.get("head.weight"), table.values());
    const { loss } = await pipeline.step(generate("naive", { devices: 1 }), batch, { optimize: false });
    const expected = llamaLoss(configuration, parameters, batch);
    assert.ok(Math.abs(loss - expected) < 1e-6 * expected, `${loss} instead of ${expected}`);
    // Saved again, it has no lm_head either.
    const again = join(folder, "again.safetensors");
    await saveWeights(pipeline, again);
    assert.deepEqual([...tensorsOf(again).keys()].sort(), [...tensors.keys()].sort());
  });
  const config = join(folder, "config.json");
  const message = "tie_word_embeddings is true there, false in t (tied)";
  await refuses(llama("t", sizes), folder, `${config} is of another model: ${message}`);
  rmSync(config);
  await refuses(llama("t", sizes), folder, `${folder} does not fit t: it lacks "lm_head.weight"`);
  // A second copy may be there if it is one.
  writeTensorFile(path, [...tensors.values(), { ...table, name: "lm_head.weight" }]);
  await loads(llama("tied", configuration), path);
  writeTensorFile(path, [...tensors.values(), head]);
  const unequal = '"model.embed_tokens.weight" and "lm_head.weight" are one parameter, but not equal';
  await refuses(llama("tied", configuration), path, `${path}: ${unequal}`);
});

test("values that are not finite are neither loaded nor saved", async () => {
  const path = join(folder, "x.safetensors");
  for (const [bad, count, first] of [[NaN, 1, 5], [Infinity, 3, 0], [-Infinity, 16, 0]] as const) {
    const tensors = tensorsOf(shards);
    const norm = tensors.get("model.norm.weight")!;
    const values = Float32Array.from(norm.values(), (value, i) => i >= first && i < first + count ? bad : value);
    writeTensorFile(
      path,
      [...tensors.values()].map((each) => each === norm ? { ...norm, values: () => values } : each),
    );
    const fault = `has ${count} of 16 values not finite, the first is ${bad} at ${first}`;
    await refuses(llama("t", sizes), path, `${path}: tensor "model.norm.weight" ${fault}`);
    const kept = join(folder, "kept.safetensors");
    await withPipeline(llama("t", sizes), async (pipeline) => {
      await saveWeights(pipeline, kept);
      const [before, names] = [readFileSync(kept), readdirSync(folder)];
      const parameters = await pipeline.parameters();
      pipeline.setParameters(new Map([...parameters, ["norm.weight", values]]));
      await assert.rejects(saveWeights(pipeline, kept), {
        name: "UserError",
        message: `Nothing is saved to ${kept}: "norm.weight" of t ${fault}`,
      });
      assert.deepEqual(readFileSync(kept), before);
      assert.deepEqual(readdirSync(folder), names);
    });
  }
});

test("running statistics that are not finite are neither loaded nor saved", async () => {
  const path = join(folder, "x.safetensors");
  await withPipeline(tinyResnet(), (pipeline) => saveWeights(pipeline, path));
  const tensors = tensorsOf(path);
  const variance = tensors.get("bn1.running_var")!;
  const values = variance.values().map((value, i) => i === 1 ? NaN : value);
  tensors.set(variance.name, { ...variance, values: () => values });
  writeTensorFile(path, [...tensors.values()]);
  const fault = "has 1 of 2 values not finite, the first is NaN at 1";
  await refuses(tinyResnet(), path, `${path}: tensor "bn1.running_var" ${fault}`);
  await withPipeline(tinyResnet(), async (pipeline) => {
    pipeline.setState((await pipeline.state()).set("bn1.running_var", values));
    await assert.rejects(saveWeights(pipeline, path), {
      name: "UserError",
      message: `Nothing is saved to ${path}: "bn1.running_var" of r ${fault}`,
    });
  });
});
