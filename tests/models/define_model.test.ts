import assert from "node:assert/strict";
import { test } from "node:test";
import { averagePool } from "../../lib/layers/pool.ts";
import { conv2d } from "../../lib/layers/conv2d.ts";
import { dropout } from "../../lib/layers/dropout.ts";
import { embedding } from "../../lib/layers/embedding.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { linear } from "../../lib/layers/linear.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { crossEntropy } from "../../lib/losses/cross_entropy.ts";
import { meanSquaredError } from "../../lib/losses/mean_squared_error.ts";
import { defineModel, type ModelDefinition } from "../../lib/models/define_model.ts";
import { outputShapeOf, targetsOf } from "../../lib/models/model.ts";

const loss = meanSquaredError();
const regression: ModelDefinition = {
  name: "r",
  inputs: { shape: [4] },
  layers: [linear("in", 4, 8), gelu(), linear("out", 8, 2)],
  loss,
};
/** A layer that reads a side input. */
const reading = (side: string): Layer => ({ ...gelu(), reads: { sides: [side] } });

test("defineModel() gives each kind of input the shape that layers take", () => {
  const shapes = (definition: ModelDefinition) => {
    const model = defineModel(definition);
    return [model.inputShape(3), outputShapeOf(model, 3), targetsOf(model, 3).shape];
  };
  assert.deepEqual(shapes(regression), [[3, 4], [3, 2], [3, 2]]);
  assert.deepEqual(shapes({ ...regression, inputs: { shape: [5, 4] } }), [[15, 4], [15, 2], [15, 2]]);
  const images = { inputs: { shape: [6, 6, 2] }, layers: [conv2d("c", 2, 3, { size: 3 })] };
  assert.deepEqual(shapes({ ...regression, ...images }), [[3, 6, 6, 2], [3, 6, 6, 3], [3, 6, 6, 3]]);
  const pooled = { ...images, layers: [...images.layers, averagePool()], loss: crossEntropy() };
  assert.deepEqual(shapes({ ...regression, ...pooled }), [[3, 6, 6, 2], [3, 3], [3]]);
  const tokens = { inputs: { shape: [5], vocabulary: 9 }, layers: [embedding("e", 9, 4), linear("h", 4, 9)] };
  assert.deepEqual(shapes({ ...regression, ...tokens, loss: crossEntropy() }), [[2, 15], [15, 9], [15]]);
});

test("defineModel() fills in what is not said, and keeps what is", () => {
  const { task, configuration, takes, packInputs } = defineModel(regression);
  assert.deepEqual({ task, configuration, takes }, { task: "own", configuration: {}, takes: { inputs: [4] } });
  const numbers = Float32Array.of(1, 2, 3, 4);
  assert.equal(packInputs(numbers), numbers);
  const layers = [embedding("e", 9, 4), linear("h", 4, 9, { transposed: true })];
  const text = defineModel({
    ...{ name: "t", task: "next-token", configuration: { width: 4 }, loss: crossEntropy(), layers },
    inputs: { shape: [3], vocabulary: 9 },
    tied: [[layers[0].parameters[0], layers[1].parameters[0]]],
  });
  assert.equal(text.task, "next-token");
  assert.equal(text.tied!.length, 1);
  assert.deepEqual(text.takes, { inputs: [3], vocabulary: 9 });
  const end = 0x7fff_ffff, later = 0x8000_0000;
  assert.deepEqual(text.packInputs(Uint32Array.of(7, 2, 7)), Uint32Array.of(7, 2, 7, 2, end, (later | end) >>> 0));
});

test("defineModel() refuses what no pipeline could run, in one line", () => {
  const refused = (change: object, message: string) =>
    assert.throws(() => defineModel({ ...regression, ...change }), { name: "UserError", message });
  const names = "name, layers, loss, inputs, sides, tied, configuration, task";
  refused({ optimizer: 1 }, `defineModel: there is no "optimizer"; there are ${names}`);
  refused({ name: undefined }, "defineModel: name must be a string, not undefined");
  refused({ layers: [] }, "defineModel: layers must be a list of one or more, not []");
  refused(
    { task: "regression" },
    'defineModel: task must be one of "next-token", "masked-token", "image", "own", not "regression"',
  );
  refused({ inputs: undefined }, "The inputs of r takes an object with shape, vocabulary, not undefined");
  refused(
    { inputs: { shape: [0] } },
    "The inputs of r: shape must be a list of one or more, each a whole number, 1 or more, not [0]",
  );
  refused(
    { inputs: { shape: [4, 2], vocabulary: 5 } },
    "The inputs of r: shape must be a list of 1, each a whole number, 1 or more, not [4, 2]",
  );
  refused(
    { loss: "mse" },
    'defineModel: the loss of r must be a Loss, as crossEntropy() and meanSquaredError() return, not "mse"',
  );
  refused({ inputs: { shape: [5] } }, "in takes [rows, 4], and what comes before it makes [2, 5]");
  refused(
    { layers: [linear("in", 4, 8), linear("out", 9, 2)] },
    "out takes [rows, 9], and what comes before it makes [2, 8]",
  );
  refused({ inputs: { shape: [6, 6, 4] } }, "in takes [rows, 4], and what comes before it makes [2, 6, 6, 4]");
  refused(
    { inputs: { shape: [6, 6, 4] }, layers: [gelu()], loss: crossEntropy() },
    "Cross-entropy compares logits [rows, classes] with classes, not outputs [2,6,6,4]",
  );
});

test("side inputs that are read are described, and as something", () => {
  const refused = (change: object, message: string) =>
    assert.throws(() => defineModel({ ...regression, ...change }), { name: "UserError", message });
  const mask = { type: "f32", shape: [4] } as const;
  const layers = [linear("in", 4, 8), sequential([reading("mask"), dropout("d", { rate: 0.1, length: 1 })])];
  assert.deepEqual(defineModel({ ...regression, layers, sides: { mask } }).takes.sides, { mask });
  refused({ layers }, 'r reads a side input "mask" without describing it; it describes seed');
  refused(
    { layers, sides: { msk: mask } },
    'r reads a side input "mask" without describing it; it describes seed, msk',
  );
  refused(
    { loss: { ...loss, sides: ["weight"] } },
    'r reads a side input "weight" without describing it; it describes seed',
  );
  refused({ sides: [mask] }, "`takes` of r: sides must be side inputs by name, not [an object]");
  const wrong = (side: object, message: string) =>
    refused({ sides: { mask: side } }, `Side input "mask" of r${message}`);
  wrong({ shape: [] }, ': type must be one of "u32", "f32", not undefined');
  wrong({ type: "f32", shape: [0] }, ": shape must be a list of axes, each a whole number, 1 or more, not [0]");
  wrong({ ...mask, otherwise: NaN }, ": otherwise must be a finite number, not NaN");
  wrong({ ...mask, type: "u32", most: 0.5 }, ": most must be a whole number from 0 to 4294967295, not 0.5");
  wrong({ ...mask, least: 2, most: 1 }, " must have least, otherwise and most in this order, not 2, 2, 1");
  wrong({ ...mask, least: 2, otherwise: 1 }, " must have least, otherwise and most in this order, not 2, 1, Infinity");
  refused(
    { sides: { seed: mask } },
    'Side input "seed" of r has the name of one that every batch has; give it another',
  );
  refused(
    { sides: { lengths: mask } },
    'Side input "lengths" of r is the batch\'s `lengths`, which may be left out: its type must be "u32", its shape [], and ' +
      "`otherwise` given",
  );
});
