import assert from "node:assert/strict";
import { test } from "node:test";
import { bert, bertConfigurations } from "../../lib/models/bert.ts";
import { llama, llamaConfigurations } from "../../lib/models/llama.ts";
import { countParameters } from "../../lib/models/model.ts";

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
