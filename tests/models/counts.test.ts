import assert from "node:assert/strict";
import { test } from "node:test";
import { bert, bertConfigurations } from "../../lib/models/bert.ts";
import { llama, llamaConfigurations } from "../../lib/models/llama.ts";
import { mambaConfigurations } from "../../lib/models/mamba.ts";
import { countParameters } from "../../lib/models/model.ts";
import { createModel } from "../../lib/models/registry.ts";
import { resnetConfigurations } from "../../lib/models/resnet.ts";

// Hugging Face's BertForMaskedLM and LlamaForCausalLM, `sum(p.numel() for p in model.parameters())`.
const published = { "bert-base": 109_514_298, "bert-large": 335_174_458 };
const publishedLlama = { "llama-160m": 162_417_408, "llama-1.1b": 1_100_048_384, "llama-7b": 6_738_415_616 };

test("BERTs of the public sizes have the published numbers of parameters, the tied decoder counted once", () => {
  for (const [name, count] of Object.entries(published)) {
    assert.equal(countParameters(bert(name, bertConfigurations[name])), count, name);
  }
});

test("LLaMas of the public sizes have the published numbers of parameters", () => {
  for (const [name, count] of Object.entries(publishedLlama)) {
    assert.equal(countParameters(llama(name, llamaConfigurations[name])), count, name);
  }
});

const sum = (counts: readonly number[]) => counts.reduce((total, count) => total + count, 0);

test("the transformers of the 2BP paper have the parameters that their sizes give, SwiGLU's inside of 4 x width rounded up to 256", () => {
  const count = (vocabulary: number, width: number, hidden: number, blocks: number) =>
    2 * vocabulary * width + blocks * (4 * width ** 2 + 3 * width * hidden + 2 * width) + width;
  const hidden = Math.ceil(Math.floor(2 * (4 * 4096) / 3) / 256) * 256;
  assert.equal(hidden, llamaConfigurations["paper-transformer"].hidden);
  assert.equal(countParameters(createModel("paper-transformer")), count(32_000, 4096, hidden, 32));
  assert.equal(countParameters(createModel("paper-transformer")), publishedLlama["llama-7b"]);
  assert.equal(countParameters(createModel("paper-transformer-16")), count(32_000, 4096, hidden, 16));
  assert.equal(countParameters(createModel("paper-transformer-tiny")), count(1000, 128, 344, 16));
});

test("the BERT-Large of the 2BP paper and its twin have the parameters that their sizes give", () => {
  const count = (vocabulary: number, width: number, hidden: number, blocks: number, positions: number) => {
    const embeddings = (vocabulary + positions + 2) * width + 2 * width;
    const block = 4 * (width ** 2 + width) + 2 * width * hidden + hidden + width + 4 * width;
    const head = width ** 2 + 3 * width + vocabulary; // its decoder is the token table, its bias is not
    return embeddings + blocks * block + head;
  };
  assert.equal(countParameters(createModel("paper-bert-large")), published["bert-large"]);
  assert.equal(count(30_522, 1024, 4096, 24, 512), published["bert-large"]);
  assert.equal(countParameters(createModel("paper-bert-large-tiny")), count(1908, 64, 256, 24, 32));
});

test("the Mamba-1.4b of the 2BP paper and its twin have the parameters that their sizes give", () => {
  for (const name of ["paper-mamba-1.4b", "paper-mamba-1.4b-tiny"]) {
    const { vocabulary, width, blocks, state, expand, rank } = mambaConfigurations[name];
    const inner = expand * width;
    const mixer = [
      2 * width * inner, // to x and z
      4 * inner + inner, // the convolution over 4 tokens
      inner * (rank + 2 * state), // to step sizes, B and C
      rank * inner + inner, // of the step sizes
      inner * state + inner, // A and D
      inner * width, // back
    ];
    assert.equal(countParameters(createModel(name)), vocabulary * width + blocks * (sum(mixer) + width) + width, name);
  }
  assert.equal(countParameters(createModel("paper-mamba-1.4b")), 1_372_178_432); // state-spaces/mamba-1.4b
});

test("the ResNet-152 of the 2BP paper and its twin have the parameters that their sizes give", () => {
  for (const name of ["paper-resnet-152", "paper-resnet-152-tiny"]) {
    const { width, blocks, classes } = resnetConfigurations[name];
    const conv = (size: number, inputs: number, outputs: number) => size ** 2 * inputs * outputs + 2 * outputs;
    let inputs = width;
    const parts = blocks.map((count, part) => {
      const inside = width * 2 ** part, outside = 4 * inside;
      const block = (inputs: number) => conv(1, inputs, inside) + conv(3, inside, inside) + conv(1, inside, outside);
      const first = block(inputs) + conv(1, inputs, outside);
      inputs = outside;
      return first + (count - 1) * block(outside);
    });
    assert.equal(
      countParameters(createModel(name)),
      conv(7, 3, width) + sum(parts) + inputs * classes + classes,
      name,
    );
  }
  assert.equal(countParameters(createModel("paper-resnet-152")), 60_192_808); // torchvision's resnet152
});
