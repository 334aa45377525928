import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createModel } from "../../lib/models/registry.ts";
import { countParameters, type Model, parametersOf } from "../../lib/models/model.ts";
import { modelFrom, type ModelFromOptions } from "../../lib/weights/model_from.ts";

let folder: string;
before(() => folder = mkdtempSync(join(tmpdir(), "twobp-model-from-")));
after(() => rmSync(folder, { recursive: true }));

/** A folder of tests/fixtures/published: configurations as their authors published them. */
const published = (name: string) => fileURLToPath(new URL(`../fixtures/published/${name}`, import.meta.url));

/** The model of a config.json that says this; its folder is called "m". */
function modelOf(said: unknown, options?: ModelFromOptions): Model {
  mkdirSync(join(folder, "m"), { recursive: true });
  writeFileSync(join(folder, "m", "config.json"), typeof said === "string" ? said : JSON.stringify(said));
  return modelFrom(join(folder, "m"), options);
}

const llama = {
  ...{ model_type: "llama", vocab_size: 19, hidden_size: 16, num_hidden_layers: 2, intermediate_size: 10 },
  ...{ num_attention_heads: 4, max_position_embeddings: 32, rms_norm_eps: 1e-5 },
};
const mistral = { ...llama, model_type: "mistral", num_key_value_heads: 2, sliding_window: null };
const qwen2 = { ...llama, model_type: "qwen2", num_key_value_heads: 2 };
const bert = { ...llama, model_type: "bert", rms_norm_eps: undefined };
const mamba = { model_type: "mamba", vocab_size: 19, hidden_size: 8, num_hidden_layers: 1, state_size: 4 };
const scaling = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 16 };

// `sum(p.numel() for p in model.parameters())` of Hugging Face's models, a tied head counted once, as model cards have them.
const counts = {
  "llama-3.2-1b": 1_235_814_400,
  "qwen2.5-0.5b": 494_032_768,
  "tinyllama-1.1b": 1_100_048_384,
  "mistral-7b-v0.3": 7_248_023_552,
  "bert-base-uncased": 109_514_298,
  "mamba-130m": 129_135_360,
};

test("models of published configurations have the published numbers of parameters", () => {
  for (const [name, count] of Object.entries(counts)) {
    const model = modelFrom(published(name));
    assert.equal(countParameters(model), count, name);
    assert.equal(model.name, name);
  }
});

test("Mistral 7B's first version is refused for its window; without it, it has the published number of parameters", () => {
  const path = published("mistral-7b-v0.1");
  assert.throws(() => modelFrom(path), {
    name: "UserError",
    message: `${join(path, "config.json")}: sliding_window must be null, not 4096`,
  });
  const model = modelOf({ model_type: "mistral", sliding_window: null });
  assert.equal(countParameters(model), 7_241_732_096);
});

test("published configurations become the models that are here by name", () => {
  for (const [name, ours] of [["tinyllama-1.1b", "llama-1.1b"], ["mamba-130m", "mamba-130m"]]) {
    const expected = createModel(ours), { length } = expected.configuration;
    assert.deepEqual(modelFrom(published(name), { length }).configuration, expected.configuration);
  }
  assert.deepEqual(modelFrom(published("bert-base-uncased")).configuration, createModel("bert-base").configuration);
});

test("what a LLaMa computes with is read in both spellings, whatever null is left to default", () => {
  const expected = {
    ...{ vocabulary: 19, width: 16, blocks: 2, heads: 4, kvHeads: 4, headSize: 4, hidden: 10, length: 32 },
    ...{ epsilon: 1e-5, ropeTheta: 10_000 },
  };
  assert.deepEqual(modelOf(llama).configuration, expected);
  assert.deepEqual(
    modelOf({ ...llama, num_key_value_heads: null, head_dim: null, rope_scaling: null }).configuration,
    expected,
  );
  assert.deepEqual(modelOf({ ...llama, rms_norm_eps: undefined }).configuration, { ...expected, epsilon: 1e-6 });
  const scaled = {
    ...{ ...expected, ropeTheta: 500_000, headSize: 8, kvHeads: 2 },
    ...{ "ropeScaling.factor": 8, "ropeScaling.lowFrequencyFactor": 1, "ropeScaling.highFrequencyFactor": 4 },
    "ropeScaling.originalLength": 16,
  };
  const heads = { ...llama, num_key_value_heads: 2, head_dim: 8 };
  const spellings = [
    { rope_theta: 5e5, rope_scaling: { rope_type: "llama3", ...scaling } },
    { rope_theta: 5e5, rope_scaling: { type: "llama3", ...scaling } },
    { rope_parameters: { rope_type: "llama3", rope_theta: 5e5, ...scaling } },
    { rope_theta: 5e5, rope_scaling: null, rope_parameters: { rope_type: "llama3", rope_theta: 5e5, ...scaling } },
  ];
  for (const spelling of spellings) assert.deepEqual(modelOf({ ...heads, ...spelling }).configuration, scaled);
  const tied = modelOf({ ...llama, tie_word_embeddings: true });
  assert.deepEqual(tied.tied?.map((pair) => pair.map(({ name }) => name)), [["embedding.weight", "head.weight"]]);
  assert.equal(modelOf(llama).tied, undefined);
});

test("queries, keys and values of Qwen 2 have biases, those of LLaMa and Mistral have none", () => {
  const biases = (said: unknown) => parametersOf(modelOf(said)).filter(({ name }) => name.endsWith("bias"));
  assert.deepEqual([llama, mistral].flatMap(biases), []);
  assert.deepEqual(biases(qwen2).map(({ name, shape }) => [name, ...shape]), [
    ["blocks.0.attention.qkv.bias", 32],
    ["blocks.1.attention.qkv.bias", 32],
  ]);
});

test("what a configuration leaves out is what transformers takes for it", () => {
  const sizes = (
    { configuration: { vocabulary, width, blocks, heads, kvHeads, hidden, epsilon } }: Model,
  ) => [vocabulary, width, blocks, heads, kvHeads, hidden, epsilon];
  assert.deepEqual(sizes(modelOf({ model_type: "llama" })), [32_000, 4096, 32, 32, 32, 11_008, 1e-6]);
  assert.deepEqual(sizes(modelOf(mistral)), [19, 16, 2, 4, 2, 10, 1e-5]);
  assert.deepEqual(
    sizes(modelOf({ model_type: "mistral", sliding_window: null })),
    [32_000, 4096, 32, 32, 8, 14_336, 1e-6],
  );
  assert.deepEqual(sizes(modelOf({ model_type: "qwen2" })), [32_000, 4096, 32, 32, 32, 22_016, 1e-6]);
  const { vocabulary, width, blocks, positions, types, dropout, epsilon } =
    modelOf({ model_type: "bert" }).configuration;
  assert.deepEqual(
    [vocabulary, width, blocks, positions, types, dropout, epsilon],
    [30_522, 768, 12, 512, 2, 0.1, 1e-12],
  );
  const { state, expand, rank } = modelOf({ model_type: "mamba" }).configuration;
  assert.deepEqual([state, expand, rank], [16, 2, 48]);
});

test("a sequence has 2048 tokens, or as many as there are positions, or as many as are asked for", () => {
  const length = (said: unknown, options?: ModelFromOptions) => modelOf(said, options).configuration.length;
  assert.equal(length(llama), 32);
  assert.equal(length({ ...llama, max_position_embeddings: 131_072 }), 2048);
  assert.equal(length(mamba), 2048);
  assert.equal(length({ ...llama, max_position_embeddings: 131_072 }, { length: 4096 }), 4096);
  assert.equal(length(bert, { length: 20 }), 20);
});

test("the mask of a BERT is Google's, the last token of a small vocabulary, or what is asked for", () => {
  assert.equal(modelFrom(published("bert-base-uncased")).configuration.mask, 103);
  assert.equal(modelOf(bert).configuration.mask, 18);
  assert.equal(modelOf(bert, { mask: 4 }).configuration.mask, 4);
});

/** What a configuration of a kind must not say, and how it is refused. */
const refused: Record<string, [kind: object, fields: object, message: string][]> = {
  "attention that is not computed": [
    [mistral, { sliding_window: 4096 }, "sliding_window must be null, not 4096"],
    [mistral, { sliding_window: undefined }, "sliding_window must be null, not 4096, which it is by default"],
    [llama, { sliding_window: 8 }, "sliding_window must be null, not 8"],
    [qwen2, { use_sliding_window: true, sliding_window: 8 }, "use_sliding_window must be false, not true"],
    [
      qwen2,
      { layer_types: ["full_attention", "sliding_attention"] },
      'layer_types must be "full_attention" in every layer, not ["full_attention", "sliding_attention"]',
    ],
    [llama, { attention_bias: true }, "attention_bias must be false, not true"],
    [llama, { attention_dropout: 0.1 }, "attention_dropout must be 0, not 0.1"],
    [
      bert,
      { position_embedding_type: "relative_key" },
      'position_embedding_type must be "absolute", not "relative_key"',
    ],
    [bert, { is_decoder: true }, "is_decoder must be false, not true"],
    [bert, { add_cross_attention: true }, "add_cross_attention must be false, not true"],
  ],
  "rotations that are not computed": [
    ...["linear", "dynamic", "yarn", "longrope", "LLAMA3"].map((type): [object, object, string] => [
      llama,
      { rope_scaling: { rope_type: type, factor: 2 } },
      `rope_scaling.rope_type must be one of "default", "llama3", not "${type}"`,
    ]),
    [
      llama,
      { rope_scaling: { type: "linear", factor: 2 } },
      'rope_scaling.type must be one of "default", "llama3", not "linear"',
    ],
    [
      llama,
      { rope_parameters: { rope_type: "yarn" } },
      'rope_parameters.rope_type must be one of "default", "llama3", not "yarn"',
    ],
    [
      llama,
      { rope_parameters: { full_attention: { rope_theta: 1e6 } } },
      "rope_parameters.full_attention must be null, not an object",
    ],
    [llama, { partial_rotary_factor: 0.5 }, "partial_rotary_factor must be 1, not 0.5"],
    [
      llama,
      { rope_parameters: { partial_rotary_factor: 0.5 } },
      "rope_parameters.partial_rotary_factor must be 1, not 0.5",
    ],
    [llama, { rope_theta: -1 }, "rope_theta must be a finite number, above 0, not -1"],
    [
      llama,
      { rope_theta: 1e4, rope_parameters: { rope_theta: 1e6 } },
      "rope_theta, which is 10000, must be the same as rope_parameters.rope_theta, which is 1000000",
    ],
    [
      llama,
      { rope_scaling: { rope_type: "llama3", ...scaling, factor: "8" } },
      'rope_scaling.factor must be a finite number, 1 or more, not "8"',
    ],
    [
      llama,
      { rope_scaling: { rope_type: "llama3", ...scaling, low_freq_factor: undefined } },
      'low_freq_factor must be a finite number, above 0, not left out, where rope_type is "llama3"',
    ],
    [
      llama,
      { rope_scaling: { rope_type: "llama3", ...scaling, high_freq_factor: 1 } },
      'LLaMa "m": ropeScaling: highFrequencyFactor 1 must be above lowFrequencyFactor, which is 1',
    ],
  ],
  "layers that are not computed": [
    [llama, { hidden_act: "gelu" }, 'hidden_act must be "silu", not "gelu"'],
    [bert, { hidden_act: "gelu_new" }, 'hidden_act must be "gelu", not "gelu_new"'],
    [mamba, { hidden_act: "relu" }, 'hidden_act must be "silu", not "relu"'],
    [qwen2, { mlp_bias: true }, "mlp_bias must be false, not true"],
    [mamba, { use_bias: true }, "use_bias must be false, not true"],
    [mamba, { use_conv_bias: false }, "use_conv_bias must be true, not false"],
    [mamba, { conv_kernel: 3 }, "conv_kernel must be 4, not 3"],
    [mamba, { rms_norm: false }, "rms_norm must be true, not false"],
    [mamba, { tie_word_embeddings: false }, "tie_word_embeddings must be true, not false"],
    [bert, { tie_word_embeddings: false }, "tie_word_embeddings must be true, not false"],
    ...[llama, mistral, qwen2, bert, mamba].map((kind): [object, object, string] => [
      kind,
      { quantization_config: { quant_method: "gptq" } },
      "quantization_config must be null, not an object",
    ]),
  ],
  "sizes and constants that are none, or do not fit": [
    [llama, { vocab_size: "19" }, 'vocab_size must be a whole number, 1 or more, not "19"'],
    [llama, { vocab_size: null }, "vocab_size must be a whole number, 1 or more, not null"],
    [llama, { rms_norm_eps: 0 }, "rms_norm_eps must be a finite number, above 0, not 0"],
    [llama, { tie_word_embeddings: "yes" }, 'tie_word_embeddings must be true or false, not "yes"'],
    [
      llama,
      { hidden_act: "relu", mlp_bias: true },
      'hidden_act must be "silu", not "relu"; mlp_bias must be false, not true',
    ],
    [
      llama,
      { num_attention_heads: 3 },
      "blocks.0.attention: width 16 over 3 heads gives no even head size; heads must divide the width into even numbers",
    ],
    [llama, { head_dim: 3 }, "blocks.0.attention: headSize 3 must be even, since positions turn pairs of features"],
    [
      bert,
      { attention_probs_dropout_prob: 0.2 },
      "attention_probs_dropout_prob must be hidden_dropout_prob, which is 0.1, not 0.2",
    ],
    [mamba, { time_step_rank: "all" }, 'time_step_rank must be a whole number, 1 or more, or "auto", not "all"'],
    [mamba, { intermediate_size: 12 }, "intermediate_size must be expand x hidden_size, which is 16, not 12"],
    [mamba, { state_size: 6 }, "blocks.0.mixer: state 6 must be a multiple of 4"],
    ...[undefined, "gemma2", 7, ["llama"]].map((type): [object, object, string] => [
      llama,
      { model_type: type },
      `model_type must be one of "llama", "mistral", "qwen2", "bert", "mamba", not ${
        type === "gemma2" ? '"gemma2"' : Array.isArray(type) ? '["llama"]' : type
      }`,
    ]),
  ],
};

for (const [what, cases] of Object.entries(refused)) {
  test(`refused by name, with what would be right: ${what}`, () => {
    for (const [kind, fields, message] of cases) {
      modelOf(kind);
      assert.throws(() => modelOf({ ...kind, ...fields }), {
        name: "UserError",
        message: `${join(folder, "m", "config.json")}: ${message}`,
      });
    }
  });
}

test("what does not matter here is let pass", () => {
  const free = {
    pretraining_tp: 2,
    torch_dtype: "bfloat16",
    architectures: ["X"],
    initializer_range: 1,
    use_cache: false,
  };
  const swish = { hidden_act: "swish", layer_types: ["full_attention", "full_attention"], rope_scaling: {} };
  assert.deepEqual(modelOf({ ...llama, ...free, ...swish }).configuration, modelOf(llama).configuration);
  const window = { sliding_window: 32_768, max_window_layers: 21, use_mrope: false };
  assert.deepEqual(modelOf({ ...qwen2, ...window }).configuration, modelOf(qwen2).configuration);
});

test("folders without a config.json, files of anything and options that are none are refused", () => {
  const message = (run: () => unknown) => {
    let said = "";
    assert.throws(run, (error: Error) => {
      said = error.message;
      return error.name === "UserError";
    });
    return said;
  };
  const path = join(folder, "m", "config.json");
  assert.equal(message(() => modelFrom(folder)), `There is no file ${join(folder, "config.json")}`);
  assert.equal(message(() => modelFrom(undefined as never)), "modelFrom(): the folder must be a string, not undefined");
  assert.equal(message(() => modelOf("[]")), `${path}: the configuration is not an object`);
  assert.equal(message(() => modelOf("{")), `${path}: the configuration is not JSON`);
  assert.equal(
    message(() => modelOf('{"model_type":"llama","model_type":"bert"}')),
    `${path}: the configuration has "model_type" twice`,
  );
  assert.equal(
    message(() => modelOf(llama, { lenght: 3 } as never)),
    'modelFrom(): there is no "lenght"; there are length, mask',
  );
  assert.equal(
    message(() => modelOf(llama, { length: 0 })),
    "modelFrom(): length must be a whole number, 1 or more, not 0",
  );
  assert.equal(message(() => modelOf(llama, { mask: 3 })), "modelFrom(): mask 3 must be left out, m masks no tokens");
  assert.equal(
    message(() => modelOf(bert, { mask: 19 })),
    `${path}: BERT "m": mask 19 is no token of a vocabulary of 19; it must be below`,
  );
  assert.equal(
    message(() => modelOf(bert, { length: 33 })),
    `${path}: embeddings: sequences of 33 tokens need more than 32 positions`,
  );
  const long = message(() => modelOf({ ...llama, hidden_act: "\u202e".repeat(5000), model_type: "llama" }));
  assert.ok(long.length < 500 && !long.includes("\u202e"), long);
});
