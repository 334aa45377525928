/** Batches of models of one's own: f32 targets, losses with other marks, side inputs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { gelu } from "../../lib/layers/gelu.ts";
import { linear } from "../../lib/layers/linear.ts";
import { crossEntropy } from "../../lib/losses/cross_entropy.ts";
import { meanSquaredError } from "../../lib/losses/mean_squared_error.ts";
import { blankBatch } from "../../lib/measure/memory.ts";
import { defineModel } from "../../lib/models/define_model.ts";
import { checkBatch } from "../../lib/train/check_batch.ts";
import type { Batch } from "../../lib/train/data.ts";

const model = defineModel({
  name: "r",
  inputs: { shape: [4] },
  layers: [linear("in", 4, 3), gelu()],
  loss: meanSquaredError(),
  sides: {
    mask: { type: "f32", shape: [2, 3], least: 0, most: 1 },
    kind: { type: "u32", shape: [], most: 4, otherwise: 0 },
  },
});
const batch: Batch = {
  samples: 2,
  inputs: new Float32Array(8),
  targets: new Float32Array(6),
  sides: { mask: new Float32Array(12) },
};
const at = (count: number, index: number, value: number) => {
  const array = new Float32Array(count);
  array[index] = value;
  return array;
};
const refused = (change: object, message: string, of = model) =>
  assert.throws(() => checkBatch(of, { ...batch, ...change }, 2), { name: "UserError", message });

test("f32 targets are finite, as many as the outputs, and all count", () => {
  assert.equal(checkBatch(model, batch, 2), 6);
  refused({ targets: new Uint32Array(6) }, "Targets must be a Float32Array, not a Uint32Array");
  refused({ targets: new Float64Array(6) }, "Targets must be a Float32Array, not a Float64Array");
  refused({ targets: new Float32Array(5) }, "The batch has 5 targets; 2 samples with 3 each need 6");
  for (const value of [NaN, Infinity, -Infinity]) {
    refused({ targets: at(6, 4, value) }, `Target 1 of sample 1 is ${value}; targets must be finite numbers`);
  }
});

test("a loss may have another mark for what does not count, which is then no class", () => {
  const classifier = defineModel({
    name: "c",
    inputs: { shape: [4] },
    layers: [linear("in", 4, 3)],
    loss: crossEntropy({ ignored: 9 }),
  });
  const labelled = (...targets: number[]) => ({
    samples: 2,
    inputs: new Float32Array(8),
    targets: Uint32Array.from(targets),
  });
  assert.equal(checkBatch(classifier, labelled(2, 9), 2), 1);
  assert.throws(() => checkBatch(classifier, labelled(9, 9), 2), /All targets of the batch are ignored/);
  assert.throws(() => checkBatch(classifier, labelled(1, 2 ** 32 - 1), 2), {
    message:
      "Target 0 of sample 1 is 4294967295, -1 as a signed number; the classes of c are 0 to 2, and what is not to count is 9",
  });
});

test("side inputs have the model's names, types, sizes and ranges; those with a value of their own may be left out", () => {
  const sides = (change: object, message: string) => refused({ sides: { ...batch.sides, ...change } }, message);
  assert.equal(checkBatch(model, { ...batch, sides: { ...batch.sides, kind: Uint32Array.of(4, 0) } }, 1), 6);
  refused({ sides: undefined }, 'The batch lacks side input "mask" of r: `sides` must bring 2 samples of [2,3], f32');
  refused({ sides: [] }, "The sides of a batch must be arrays by the names of side inputs, not []");
  sides({ msk: new Float32Array(12) }, 'r has no side input "msk" that `sides` could bring; it has mask, kind');
  sides({ lengths: Uint32Array.of(1, 1) }, 'r has no side input "lengths" that `sides` could bring; it has mask, kind');
  sides({ mask: new Uint32Array(12) }, 'Side input "mask" must be a Float32Array, not a Uint32Array');
  sides({ kind: [0, 1] }, 'Side input "kind" must be a Uint32Array, not [0, 1]');
  sides({ mask: new Float32Array(11) }, 'The batch has 11 numbers of side input "mask"; 2 samples of [2,3] need 12');
  const right = "it must be a finite number from 0 to 1";
  sides({ mask: at(12, 10, NaN) }, `Side input "mask" [1, 1] of sample 1 is NaN; ${right}`);
  sides({ mask: at(12, 2, 1.5) }, `Side input "mask" [0, 2] of sample 0 is 1.5; ${right}`);
  sides({ kind: Uint32Array.of(0, 5) }, 'Side input "kind" of sample 1 is 5; it must be a whole number, 4 or less');
  refused(
    { lengths: Uint32Array.of(1, 1) },
    "r does not read lengths: leave them out, and mark the targets behind a sample's end as `ignored`",
  );
});

test("a blank batch has what the model asks for", () => {
  const blank = blankBatch(model, 2);
  assert.deepEqual(Object.keys(blank.sides!), ["mask"]);
  assert.equal(checkBatch(model, blank, 1), 6);
});

test("a loss whose targets are not as many for each sample is refused", () => {
  const odd = { ...meanSquaredError(), targets: () => ({ type: "f32", shape: [3] }) as const };
  assert.throws(() => checkBatch({ ...model, loss: odd }, batch, 1), {
    name: "UserError",
    message:
      "The mean squared error of r asks for [3] targets of 2 samples, which is not as many for each: a sample's outputs must " +
      "not depend on the others' number",
  });
});
