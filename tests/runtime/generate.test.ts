import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { UserError } from "../../lib/errors.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { embedding } from "../../lib/layers/embedding.ts";
import { linear } from "../../lib/layers/linear.ts";
import { crossEntropy } from "../../lib/losses/cross_entropy.ts";
import { defineModel } from "../../lib/models/define_model.ts";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { bert } from "../../lib/models/bert.ts";
import { llama, type LlamaConfiguration } from "../../lib/models/llama.ts";
import { loraModel } from "../../lib/models/lora_model.ts";
import { mamba } from "../../lib/models/mamba.ts";
import { frozenModel } from "../../lib/models/frozen_model.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { generator } from "../../lib/random.ts";
import type { GeneratedToken, GenerationOptions } from "../../lib/runtime/generate.ts";
import { createPipeline, type Pipeline, type PipelineOptions } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { assertClose } from "../ops/support.ts";
import { randomBatch, tiny, tinyModel } from "./support.ts";

let two: DeviceSet, virtual: DeviceSet;
before(async () => {
  two = await openDevices(2);
  virtual = await openDevices(2, { virtual: true });
});
after(() => [two, virtual].forEach((set) => set.close()));

const optimizer = sgd({ learningRate: 0.1 });
const larger: LlamaConfiguration = { ...tiny, width: 16, heads: 4, length: 24 };
const ropeScaling = { factor: 4, lowFrequencyFactor: 1, highFrequencyFactor: 2, originalLength: 12 };

/** Far from what they start with, or all logits would be much alike. */
function scramble(pipeline: Pipeline) {
  const random = generator(7), values = new Map<string, Float32Array>();
  const copies = new Set(pipeline.model.tied?.map(([, copy]) => copy.name));
  for (const { name, shape } of pipeline.model.layers.flatMap((layer) => layer.parameters)) {
    if (copies.has(name)) continue;
    const count = shape.reduce((a, b) => a * b, 1);
    values.set(name, Float32Array.from({ length: count }, () => (shape.length === 1 ? 1 : 0) + 0.4 * random.normal()));
  }
  pipeline.setParameters(values);
}

function pipelineOf(model: Model, set = two, options: Partial<PipelineOptions> = {}): Pipeline {
  const pipeline = createPipeline(set, model, { optimizer, seed: 3, ...options });
  scramble(pipeline);
  return pipeline;
}

async function tokensOf(pipeline: Pipeline, prompt: readonly number[], options: GenerationOptions = {}) {
  const made: GeneratedToken[] = [];
  const result = await pipeline.generate(prompt, { onToken: (token) => made.push(token), ...options });
  assert.deepEqual(made.map(({ token }) => token), [...result.tokens]);
  assert.deepEqual(made.map(({ position }) => position), made.map((_, i) => prompt.length + i));
  return { ...result, made };
}

/** The logits of every position, by an evaluation of the whole sequence, filled up with what nothing before sees. */
async function recomputed(pipeline: Pipeline, sequence: readonly number[]): Promise<Float32Array[]> {
  const { model: { takes: { inputs: [length], vocabulary } }, parts } = pipeline;
  const inputs = Uint32Array.from({ length }, (_, i) => sequence[i] ?? 0);
  const placement = parts.length === 4 ? "zb-v" : "1f1b-1";
  const schedule = generate(placement, { devices: 2, microbatches: 1 });
  const { outputs } = await pipeline.evaluate(schedule, { samples: 1, inputs, targets: inputs }, { outputs: true });
  return sequence.map((_, i) => outputs!.slice(i * vocabulary!, (i + 1) * vocabulary!));
}

const cases: Record<string, { model: () => Model; options?: Partial<PipelineOptions>; tolerance?: number }> = {
  "a LLaMa": { model: () => llama("plain", larger) },
  "one with shared keys, stretched positions and a tied head": {
    model: () => llama("grouped", { ...larger, kvHeads: 2, ropeScaling, tied: true, headSize: 6, qkvBias: true }),
  },
  "one with one key head, dropout and documents": {
    model: () => llama("dropped", { ...larger, kvHeads: 1, dropout: 0.3, documents: true }),
  },
  "one with adapters": {
    model: () => loraModel(llama("adapted", larger), { rank: 2, alpha: 3, targets: /attention|down/ }),
  },
  "one that is frozen": { model: () => frozenModel(llama("frozen", larger), () => true) },
  "one that recomputes": { model: () => llama("recomputing", larger), options: { recompute: "both" } },
  "a Mamba": {
    model: () =>
      mamba("mamba", { vocabulary: 19, width: 12, blocks: 3, state: 8, expand: 2, rank: 3, length: larger.length }),
  },
  "a Mamba with adapters": {
    model: () =>
      loraModel(
        mamba("mamba", { vocabulary: 19, width: 12, blocks: 2, state: 4, expand: 2, rank: 1, length: larger.length }),
        { rank: 2, alpha: 3, targets: /_proj/ },
      ),
  },
  "one in four stages on two ranks": {
    model: () => llama("folded", { ...larger, blocks: 4 }),
    options: { placement: [0, 1, 1, 0] },
  },
};

for (const [name, { model, options }] of Object.entries(cases)) {
  for (const mode of ["real", "virtual"] as const) {
    test(`the logits of ${name} (${mode}) with what is kept are those of recomputation, for each token`, async () => {
      const set = mode === "real" ? two : virtual, pipeline = pipelineOf(model(), set, options);
      for (const prompt of [[5], [3, 1, 4, 1, 5, 9, 2, 6, 5]]) {
        const { made, ended } = await tokensOf(pipeline, prompt, { seed: 4 });
        assert.equal(ended, "length");
        assert.equal(made.length, larger.length + 1 - prompt.length, "up to the model's length");
        const sequence = [...prompt, ...made.map(({ token }) => token)].slice(0, larger.length);
        const expected = await recomputed(pipeline, sequence);
        for (const { logits, position } of made) {
          assertClose(logits, expected[position - 1], 1e-5, `position ${position}`);
        }
      }
      pipeline.close();
      assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), [0, 0], "all is given back");
    });
  }
}

test("in mixed precision the logits with what is kept are as near to those of f32 as recomputed ones", async (t) => {
  if (!two.devices[0].gpu.info.f16) return t.skip("this device has no f16");
  const model = () => llama("mixed", { ...larger, kvHeads: 2 }), prompt = [3, 1, 4, 1, 5];
  const mixed = pipelineOf(model(), two, { precision: "mixed" });
  const { made } = await tokensOf(mixed, prompt);
  const sequence = [...prompt, ...made.map(({ token }) => token)].slice(0, larger.length);
  const again = await recomputed(mixed, sequence);
  mixed.close();
  const exact = pipelineOf(model());
  const expected = await recomputed(exact, sequence);
  exact.close();
  const distance = (of: (position: number) => Float32Array) =>
    Math.hypot(...made.flatMap(({ position }) => {
      return Array.from(of(position), (value, i) => value - expected[position - 1][i]);
    }));
  const [kept, whole] = [
    distance((position) => made[position - prompt.length].logits),
    distance((position) => again[position - 1]),
  ];
  assert.ok(whole > 0 && kept < 1.5 * whole, `${kept} from f32, and recomputed ${whole}`);
});

test("temperature 0 takes the likeliest token of recomputation each time", async () => {
  const pipeline = pipelineOf(llama("plain", larger));
  const sequence = [2, 7];
  const { tokens } = await pipeline.generate(sequence, { temperature: 0, tokens: 10 });
  for (const token of tokens) {
    const logits = (await recomputed(pipeline, sequence))[sequence.length - 1];
    assert.equal(token, logits.indexOf(Math.max(...logits)));
    sequence.push(token);
  }
  pipeline.close();
});

test("equal seeds give equal tokens and the same bits of logits, on other devices and beside training too; another seed others", async () => {
  const run = async (pipeline: Pipeline, seed: number) =>
    await tokensOf(pipeline, [1, 2, 3], { seed, topK: 9, topP: 0.95 });
  const one = pipelineOf(llama("plain", larger));
  const first = await run(one, 5), again = await run(one, 5), other = await run(one, 6);
  assert.deepEqual(again.made, first.made);
  assert.notDeepEqual([...other.tokens], [...first.tokens]);
  one.close();
  const elsewhere = pipelineOf(llama("plain", larger), virtual);
  assert.deepEqual((await run(elsewhere, 5)).made, first.made);
  elsewhere.close();
});

test("a generation between steps changes nothing of them, and sees what they change", async () => {
  const schedule = generate("1f1b-1", { devices: 2 });
  const run = async (between: (pipeline: Pipeline) => Promise<unknown>) => {
    const pipeline = pipelineOf(tinyModel());
    const seen: unknown[] = [];
    for (let step = 0; step < 3; step++) {
      seen.push(await between(pipeline));
      await pipeline.step(schedule, randomBatch(tiny, 4, step), { optimize: step !== 1, accumulate: step === 2 });
    }
    const parameters = await pipeline.parameters();
    pipeline.close();
    return { parameters, seen };
  };
  const plain = await run(() => Promise.resolve());
  const mixed = await run((pipeline) => tokensOf(pipeline, [1, 2]).then(({ made }) => made[0].logits));
  assert.deepEqual(mixed.parameters, plain.parameters);
  assert.notDeepEqual(mixed.seen[1], mixed.seen[0]);
});

test("stop, tokens, length and a signal end a sequence, and a token of stop is not in it", async () => {
  const pipeline = pipelineOf(llama("plain", larger));
  const { tokens } = await pipeline.generate([1], { seed: 9, tokens: 8 });
  assert.equal(tokens.length, 8);
  const at = tokens.findIndex((token, i) => i > 0 && !tokens.slice(0, i).includes(token));
  assert.ok(at > 0, "a token that has not come before");
  const stopped = await pipeline.generate([1], { seed: 9, stop: [tokens[at]] });
  assert.deepEqual([stopped.ended, [...stopped.tokens]], ["stop", [...tokens.slice(0, at)]]);
  const full = await pipeline.generate(Array(larger.length).fill(1));
  assert.deepEqual([full.ended, full.tokens.length], ["length", 1]);
  const control = new AbortController();
  let count = 0;
  const aborted = await pipeline.generate([1], {
    signal: control.signal,
    onToken: () => ++count === 3 && control.abort(),
  });
  assert.deepEqual([aborted.ended, aborted.tokens.length], ["signal", 3]);
  pipeline.close();
});

test("what onToken throws ends the generation, and the next is as without it", async () => {
  const pipeline = pipelineOf(llama("plain", larger));
  const before = await tokensOf(pipeline, [1, 2, 3], { tokens: 5 });
  const held = two.devices.map(({ ledger }) => ledger.total());
  const failing = () => {
    throw new Error("enough");
  };
  await assert.rejects(pipeline.generate([1, 2, 3], { onToken: failing }), /^Error: enough$/);
  assert.deepEqual(two.devices.map(({ ledger }) => ledger.total()), held);
  assert.deepEqual((await tokensOf(pipeline, [1, 2, 3], { tokens: 5 })).made, before.made);
  pipeline.close();
});

test("logits that are not finite fail the generation at their position", async () => {
  const pipeline = pipelineOf(llama("plain", larger));
  const values = await pipeline.parameters();
  values.get("head.weight")![3] = NaN;
  pipeline.setParameters(values);
  await assert.rejects(pipeline.generate([1, 2]), /generate: at position 2 the logit of token 3 is NaN/);
  pipeline.close();
});

test("each token makes no new buffer, whatever its position", async () => {
  const pipeline = pipelineOf(llama("plain", { ...larger, length: 200 }));
  const total: number[] = [];
  const onToken = () => void total.push(two.devices[0].ledger.reserved());
  await pipeline.generate([1, 2, 3], { onToken });
  assert.equal(new Set(total.slice(2)).size, 1, `${total}`);
  pipeline.close();
});

const refusals: [string, () => Model, readonly number[], GenerationOptions, RegExp][] = [
  [
    "a BERT",
    () =>
      bert("bert", {
        vocabulary: 19,
        mask: 18,
        width: 12,
        blocks: 2,
        heads: 2,
        hidden: 10,
        positions: 9,
        types: 2,
        length: 7,
        dropout: 0,
      }),
    [1],
    {},
    /bert fills in masked tokens/,
  ],
  [
    "a ResNet",
    () => resnet("resnet", { block: "basic", blocks: [1, 1], width: 8, stem: "3x3", size: 8, classes: 3 }),
    [1],
    {},
    /resnet takes no sequences of tokens/,
  ],
  [
    "a layer that does not say how it takes pieces",
    () => {
      const { pieces: _, ...mixing } = linear("mixing", 8, 8);
      return defineModel({
        name: "own",
        inputs: { shape: [5], vocabulary: 9 },
        layers: [embedding("embedding", 9, 8), mixing, linear("head", 8, 9)],
        loss: crossEntropy(),
      });
    },
    [1],
    {},
    /own has a layer with "mixing\.weight" that cannot take a sequence piece by piece/,
  ],
  ["an empty prompt", tinyModel, [], {}, /the prompt has no token/],
  ["a long prompt", tinyModel, Array(8).fill(1), {}, /the prompt has 8 tokens, and tiny takes 7 at most/],
  [
    "a token that there is none of",
    tinyModel,
    [1, 19],
    {},
    /token 1 of the prompt is 19; it must be a whole number below 19/,
  ],
  ["a stop that there is none of", tinyModel, [1], { stop: [20] }, /stop has 20/],
  ["a temperature below 0", tinyModel, [1], { temperature: -1 }, /temperature/],
  ["a topP above 1", tinyModel, [1], { topP: 1.5 }, /topP must be a number above 0, and 1 at most/],
  ["no topK", tinyModel, [1], { topK: 0 }, /topK/],
  ["an unknown option", tinyModel, [1], { heat: 1 } as GenerationOptions, /heat/],
];
for (const [what, model, prompt, options, message] of refusals) {
  test(`generate() refuses ${what} in one line, before anything runs`, async () => {
    const pipeline = createPipeline(two, model(), { optimizer });
    await assert.rejects(pipeline.generate(prompt, options), (error: Error) => {
      assert.ok(error instanceof UserError, error.stack);
      assert.match(error.message, message);
      assert.ok(!error.message.includes("\n"));
      return true;
    });
    pipeline.close();
  });
}

test("generate() refuses devices that compute nothing, and a pipeline that is in a step", async () => {
  const dry = { ...two, devices: dryDevices(2, two.devices[0].gpu.info), close() {} } as DeviceSet;
  const nothing = createPipeline(dry, tinyModel(), { optimizer });
  await assert.rejects(nothing.generate([1]), /dry devices compute nothing/);
  nothing.close();
  const pipeline = createPipeline(two, tinyModel(), { optimizer });
  const going = pipeline.generate([1]);
  await assert.rejects(pipeline.generate([1]), /is in a step/);
  await going;
  pipeline.close();
});

test("a generation that exceeds the budget fails with its rank, and gives everything back: a shorter one fits", async () => {
  const model = () => llama("long", { ...larger, length: 65_536 });
  two.devices.forEach(({ pool }) => pool.trim());
  const start = two.devices.map(({ ledger }) => ledger.total());
  const pipeline = createPipeline(two, model(), { optimizer, budget: 2 ** 20 });
  const held = two.devices.map(({ ledger }) => ledger.total());
  await assert.rejects(pipeline.generate([1, 2]), /^RankError: Rank [01] failed at [01]F0: .*budget/);
  assert.deepEqual(two.devices.map(({ ledger }) => ledger.total()), held);
  assert.equal((await pipeline.generate([1, 2], { tokens: 4 })).tokens.length, 4);
  pipeline.close();
  assert.deepEqual(two.devices.map(({ ledger }) => ledger.total()), start);
});
