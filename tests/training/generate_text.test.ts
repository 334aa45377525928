import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { UserError } from "../../lib/errors.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { llama } from "../../lib/models/llama.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { textSource } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { byteTokenizer, loadTokenizer, type Tokenizer } from "../../lib/train/tokenizer.ts";
import { generateText } from "../../lib/training/generate_text.ts";

const sizes = { width: 32, blocks: 2, heads: 2, hidden: 48, length: 48 };
let set: DeviceSet;
before(async () => set = await openDevices(2));
after(() => set.close());

const pipelineOf = (vocabulary: number) =>
  createPipeline(set, llama("small", { ...sizes, vocabulary }), { optimizer: adamw({ learningRate: 0.01 }), seed: 2 });

/** A pipeline whose `generate` makes these tokens, one after the other: what is left is how text comes of them. */
function saying(pipeline: Pipeline, tokens: readonly number[]): Pipeline {
  return {
    ...pipeline,
    generate: (prompt, options) => {
      tokens.forEach((token, i) => {
        options!.onToken!({ token, position: prompt.length + i, logits: new Float32Array() });
      });
      return Promise.resolve({ tokens: Uint32Array.from(tokens), ended: "tokens", promptMs: 0, tokenMs: [] });
    },
  };
}

test("a model that was trained on a text goes on with it", async () => {
  const pipeline = pipelineOf(256), text = "abcdefghijklmnop, ";
  const source = textSource(new TextEncoder().encode(text.repeat(40)), { length: sizes.length, seed: 1 });
  const schedule = generate("1f1b-1", { devices: 2 });
  for (let step = 0; step < 60; step++) await pipeline.step(schedule, source.next(4));
  const made = await generateText(pipeline, { prompt: "abcdefgh", temperature: 0, tokens: 30 });
  assert.equal(made.text, text.repeat(3).slice(8, 38));
  assert.equal(made.tokens.length, 30);
  pipeline.close();
});

test("characters of several bytes come whole, and what is cut off at the end comes last", async () => {
  const pipeline = pipelineOf(256), whole = "né €20 😀, 漢字";
  const bytes = [...new TextEncoder().encode(whole)];
  const pieces: string[] = [];
  const { text } = await generateText(saying(pipeline, bytes), { prompt: "x", onText: (piece) => pieces.push(piece) });
  assert.equal(text, whole);
  assert.deepEqual(pieces, [...whole], "a piece for each character");
  const cut = await generateText(saying(pipeline, bytes.slice(0, 2)), { prompt: "x" });
  assert.equal(cut.text, "n\ufffd");
  pipeline.close();
});

for (const name of ["bpe", "unigram", "wordpiece"]) {
  test(`the pieces of ${name} tokens are together what they are decoded to`, async () => {
    const path = fileURLToPath(new URL(`../fixtures/tokenizers/${name}.json`, import.meta.url));
    const tokenizer = await loadTokenizer(path), pipeline = pipelineOf(tokenizer.vocabulary);
    const [prompt, all] = ["to be", "to be or not to be, that is the question"];
    const [start, ids] = [prompt, all].map((text) => Array.from(tokenizer.encode(text)));
    const rest = ids.slice(ids.findIndex((id, i) => id !== start[i]));
    const head = ids.slice(0, ids.length - rest.length);
    const cut: Tokenizer = { ...tokenizer, encode: () => head };
    const { text } = await generateText(saying(pipeline, rest), { prompt, tokenizer: cut });
    assert.equal(tokenizer.decode(head) + text, tokenizer.decode(ids));
    pipeline.close();
  });
}

test("a text ends with the tokenizer's end, and has no token that the tokenizer lacks", async () => {
  const pipeline = pipelineOf(300);
  const wide = await pipeline.generate([1, 2], { seed: 1, temperature: 100 });
  assert.ok(wide.tokens.some((token) => token >= 256), "else the next would prove nothing");
  const { tokens } = await generateText(pipeline, { prompt: "a", temperature: 100 });
  assert.equal(tokens.length, sizes.length);
  assert.ok(tokens.every((token) => token < 256));
  const ending: Tokenizer = { ...byteTokenizer(), end: tokens[7] };
  const ended = await generateText(pipeline, { prompt: "a", temperature: 100, tokenizer: ending });
  assert.deepEqual([ended.ended, [...ended.tokens]], ["stop", [...tokens.slice(0, tokens.indexOf(tokens[7]))]]);
  pipeline.close();
});

test("generateText() refuses what cannot be gone on with, in one line", async () => {
  const small = pipelineOf(200);
  const images = createPipeline(
    set,
    resnet("resnet", { block: "basic", blocks: [1, 1], width: 8, stem: "3x3", size: 8, classes: 3 }),
    { optimizer: adamw() },
  );
  const bytes = pipelineOf(256);
  const refused: [() => Promise<unknown>, RegExp][] = [
    [() => generateText(small, { prompt: "a" }), /the tokenizer has 256 tokens, small only 200/],
    [() => generateText(images, { prompt: "a" }), /resnet takes no token ids/],
    [() => generateText(bytes, { prompt: "" }), /the prompt is empty/],
    [() => generateText(bytes, {} as { prompt: string }), /prompt must be a string/],
    [() => generateText(bytes, { prompt: "a", heat: 1 } as { prompt: string }), /heat/],
    [() => generateText(bytes, { prompt: "a".repeat(49) }), /the prompt has 49 tokens, and small takes 48 at most/],
  ];
  for (const [run, message] of refused) {
    await assert.rejects(run, (error: Error) => {
      assert.ok(error instanceof UserError, error.stack);
      assert.match(error.message, message);
      return !error.message.includes("\n");
    });
  }
  [small, images, bytes].forEach((pipeline) => pipeline.close());
});
