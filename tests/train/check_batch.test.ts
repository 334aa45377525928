import assert from "node:assert/strict";
import { test } from "node:test";
import { blankBatch } from "../../lib/measure/memory.ts";
import { bert } from "../../lib/models/bert.ts";
import { llama } from "../../lib/models/llama.ts";
import { mamba } from "../../lib/models/mamba.ts";
import { type Model, targetsOf } from "../../lib/models/model.ts";
import { createModel, modelNames } from "../../lib/models/registry.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { checkBatch } from "../../lib/train/check_batch.ts";
import { type Batch, ignored } from "../../lib/train/data.ts";

const text = { vocabulary: 19, width: 8, blocks: 1, length: 8 };
const models = {
  llama: llama("l", { ...text, heads: 2, hidden: 8 }),
  bert: bert("b", { ...text, mask: 18, heads: 2, hidden: 8, positions: 9, types: 2, dropout: 0.1 }),
  mamba: mamba("m", { ...text, state: 4, expand: 2, rank: 2 }),
  resnet: resnet("r", { block: "basic", blocks: [1], width: 4, stem: "3x3", size: 6, classes: 3 }),
};
const languages = ["llama", "bert", "mamba"] as const;

const ids = (count: number, step: number) => Uint32Array.from({ length: count }, (_, i) => (i * step + 3) % 19);
const sentences: Batch = { samples: 4, inputs: ids(32, 7), targets: ids(32, 5) };
const pictures: Batch = {
  samples: 4,
  inputs: Float32Array.from({ length: 4 * 108 }, (_, i) => Math.sin(i)),
  targets: Uint32Array.of(0, 1, 2, 0),
};
const at = <T extends Uint32Array | Float32Array>(array: T, index: number, value: number): T => {
  const copy = array.slice() as T;
  copy[index] = value;
  return copy;
};

function refused(model: Model, batch: Batch, message: string, microbatches = 2) {
  assert.throws(() => checkBatch(model, batch, microbatches), { name: "UserError", message });
}

test("a batch that fits is counted: targets that are not `ignored`", () => {
  for (const name of languages) assert.equal(checkBatch(models[name], sentences, 2), 32);
  const half = sentences.targets.map((target, i) => i % 2 ? ignored : target);
  assert.equal(checkBatch(models.bert, { ...sentences, targets: half }, 4), 16);
  assert.equal(
    checkBatch(models.bert, { ...sentences, lengths: Uint32Array.of(1, 8, 3, 5), seed: 2 ** 32 - 1 }, 1),
    32,
  );
  assert.equal(checkBatch(models.resnet, pictures, 2), 4);
  assert.equal(checkBatch(models.resnet, { ...pictures, targets: Uint32Array.of(2, ignored, ignored, 1) }, 1), 2);
});

test("every model of the registry takes a blank batch", () => {
  for (const name of modelNames) {
    const model = createModel(name);
    assert.equal(checkBatch(model, blankBatch(model, 2), 1), targetsOf(model, 2).shape[0], name);
  }
});

for (const name of languages) {
  test(`${name}: token ids are below the vocabulary, and come in a Uint32Array`, () => {
    const model = models[name], known = `the tokens of ${model.name} are 0 to 18`;
    const { inputs } = sentences;
    for (const [token, index] of [[19, 3], [1e6, 31], [2 ** 31, 0], [2 ** 32 - 1, 8]]) {
      refused(
        model,
        { ...sentences, inputs: at(inputs, index, token) },
        `Input ${index % 8} of sample ${Math.floor(index / 8)} is token ${token}; ${known}`,
      );
    }
    const wrong = (array: unknown, what: string) =>
      refused(
        model,
        { ...sentences, inputs: array as Uint32Array },
        `The token ids of ${model.name} must be a Uint32Array, not ${what}`,
      );
    wrong(Float32Array.from(inputs, (id) => id + 0.5), "a Float32Array");
    wrong(Float32Array.from(inputs), "a Float32Array");
    wrong(Int32Array.from(inputs), "an Int32Array");
    wrong(Uint8Array.from(inputs), "a Uint8Array");
    wrong([...inputs], "[3, 10, 17, 5, 12, 0, 7, 14, ...]");
    wrong(undefined, "undefined");
  });

  test(`${name}: classes are those of the outputs or \`ignored\`, and -100 gets a hint`, () => {
    const model = models[name];
    for (
      const [target, shown] of [
        [19, "19"],
        [25, "25"],
        [2 ** 32 - 100, "4294967196, -100 as a signed number"],
        [2 ** 32 - 2, "4294967294, -2 as a signed number"],
      ] as const
    ) {
      refused(
        model,
        { ...sentences, targets: at(sentences.targets, 13, target) },
        `Target 5 of sample 1 is ${shown}; the classes of ${model.name} are 0 to 18, ` +
          "and what is not to count is `ignored`, 4294967295",
      );
    }
    refused(
      model,
      { ...sentences, targets: Int32Array.from(sentences.targets) as unknown as Uint32Array },
      "Targets must be a Uint32Array, not an Int32Array",
    );
    refused(
      model,
      { ...sentences, targets: new Uint32Array(32).fill(ignored) },
      "All targets of the batch are ignored: it has no loss",
    );
  });

  test(`${name}: inputs and targets are as many as the samples have tokens`, () => {
    const { inputs, targets } = sentences;
    const need = (batch: Partial<Batch>, message: string) => refused(models[name], { ...sentences, ...batch }, message);
    need({ inputs: inputs.subarray(1) }, "The batch has 31 inputs; 4 samples of [8] need 32");
    need({ inputs: ids(64, 7) }, "The batch has 64 inputs; 4 samples of [8] need 32");
    need({ inputs: new Uint32Array() }, "The batch has 0 inputs; 4 samples of [8] need 32");
    need({ targets: targets.subarray(4) }, "The batch has 28 targets; 4 samples with 8 each need 32");
    need({ samples: 2 }, "The batch has 32 inputs; 2 samples of [8] need 16");
  });
}

test("a batch is an object", () => {
  for (const [batch, shown] of [[undefined, "undefined"], [null, "null"], [3, "3"]] as const) {
    refused(models.llama, batch as never, `A batch must be an object with samples, inputs and targets, not ${shown}`);
  }
  const late = Promise.resolve(sentences) as never; // of a source that reads files
  const right = "A batch must be an object with samples, inputs and targets, not a Promise (await it)";
  refused(models.llama, late, right);
});

test("samples are whole and cut evenly, the seed is a u32", () => {
  for (
    const [samples, shown] of [[0, "0"], [-2, "-2"], [1.5, "1.5"], [NaN, "NaN"], ["4", '"4"'], [undefined, "undefined"]]
  ) {
    refused(
      models.llama,
      { ...sentences, samples: samples as number },
      `The samples of a batch must be a whole number, 1 or more, not ${shown}`,
    );
  }
  refused(models.llama, sentences, "A batch of 4 samples cannot be cut into 3 equal micro-batches", 3);
  for (const seed of [-1, 0.5, 2 ** 32, NaN]) {
    refused(
      models.bert,
      { ...sentences, seed },
      `The seed of a batch must be a whole number from 0 to 4294967295, not ${seed}`,
    );
  }
});

test("lengths are one a sample, from 1 to the sequence length, and only for models that read them", () => {
  const need = (lengths: unknown, message: string) =>
    refused(models.bert, { ...sentences, lengths: lengths as Uint32Array }, message);
  need(Uint32Array.of(8, 8, 0, 8), "Sample 2 has length 0; the lengths of b are 1 to 8");
  need(Uint32Array.of(9, 8, 8, 1000), "Sample 0 has length 9; the lengths of b are 1 to 8");
  need(Uint32Array.of(8, 8), "The batch has 2 lengths; 4 samples need 4");
  need(Float32Array.of(8, 8, 8, 7.5), "Lengths must be a Uint32Array, not a Float32Array");
  for (const model of [models.llama, models.mamba, models.resnet]) {
    refused(
      model,
      { ...(model === models.resnet ? pictures : sentences), lengths: Uint32Array.of(8, 8, 8, 8) },
      `${model.name} does not read lengths: leave them out, and mark the targets behind a sample's end as \`ignored\``,
    );
  }
});

test("images are finite floats of the model's size, classes those of its outputs", () => {
  const { inputs } = pictures;
  const need = (batch: Partial<Batch>, message: string) => refused(models.resnet, { ...pictures, ...batch }, message);
  for (const value of [NaN, Infinity, -Infinity]) {
    // Row 3, column 2, blue of the third sample.
    need(
      { inputs: at(inputs as Float32Array, 2 * 108 + 3 * 18 + 2 * 3 + 2, value) },
      `Input [3, 2, 2] of sample 2 is ${value}; inputs must be finite numbers`,
    );
    need(
      { inputs: at(inputs as Float32Array, 4 * 108 - 1, value) },
      `Input [5, 5, 2] of sample 3 is ${value}; inputs must be finite numbers`,
    );
  }
  // The largest and smallest numbers there are pass.
  for (const value of [3.4e38, -3.4e38, 1e-45, -0]) {
    checkBatch(models.resnet, { ...pictures, inputs: at(inputs as Float32Array, 5, value) }, 2);
  }
  need({ inputs: new Float32Array(4 * 27) }, "The batch has 108 inputs; 4 samples of [6,6,3] need 432");
  need({ inputs: new Uint32Array(432) }, "The inputs of r must be a Float32Array, not a Uint32Array");
  need(
    { inputs: new Float64Array(432) as unknown as Float32Array },
    "The inputs of r must be a Float32Array, not a Float64Array",
  );
  need(
    { targets: Uint32Array.of(0, 1, 2, 3) },
    "Target 0 of sample 3 is 3; the classes of r are 0 to 2, and what is not to count is `ignored`, 4294967295",
  );
  need({ targets: new Uint32Array(3) }, "The batch has 3 targets; 4 samples with 1 each need 4");
});

test("inputs that begin inside a longer buffer are looked at where they lie", () => {
  const whole = new Float32Array(3 + 432 + 1).fill(NaN);
  whole.set(pictures.inputs, 3);
  const inputs = whole.subarray(3, 435);
  assert.equal(checkBatch(models.resnet, { ...pictures, inputs }, 2), 4);
  whole[434] = NaN;
  refused(models.resnet, { ...pictures, inputs }, "Input [5, 5, 2] of sample 3 is NaN; inputs must be finite numbers");
});

test("batch normalisation over one value a channel is refused, as PyTorch does, by the micro-batch and not by the batch", () => {
  const model = resnet("r", { block: "basic", blocks: [1], width: 4, stem: "3x3", size: 2, classes: 3 });
  const batch = { samples: 4, inputs: new Float32Array(48), targets: new Uint32Array(4) };
  refused(
    model,
    batch,
    "bn1: batch normalisation over [1,1,1,4] needs at least 2 values a channel, and there is 1, whose deviation is 0: " +
      "micro-batches of more samples or larger images have more",
    4,
  );
  assert.equal(checkBatch(model, batch, 2), 4);
  // Later in the network, behind a halving.
  const deeper = resnet("d", { block: "bottleneck", blocks: [1, 1], width: 4, stem: "3x3", size: 4, classes: 3 });
  assert.throws(
    () => checkBatch(deeper, { samples: 2, inputs: new Float32Array(96), targets: new Uint32Array(2) }, 2),
    /^UserError: layer2\.0\.bn2: batch normalisation over \[1,1,1,8\] needs at least 2 values a channel/,
  );
});

test("a field that a batch has not is refused: one that is mistyped would be ignored", () => {
  const mistyped = { ...sentences, lenghts: Uint32Array.of(8, 8, 8, 8) };
  refused(models.bert, mistyped, 'A batch has no "lenghts"; it has samples, inputs, targets, lengths, sides, seed');
});
