import assert from "node:assert/strict";
import { after, test } from "node:test";
import { add, fill, lanes, scale } from "../../lib/ops/elementwise.ts";
import { empty, toArray, view } from "../../lib/tensor.ts";
import { assertTensor, close, device, dirty, normal, tensor } from "./support.ts";

after(close);

for (const count of [1, 2, 3, 4, 257, 1023]) {
  const a = normal(count, 1), b = normal(count, 2);

  test(`add(), scale() and fill() write all of ${count} elements`, async () => {
    const on = await device();
    const sum = dirty(on, [count]), product = dirty(on, [count]), filled = dirty(on, [count]);
    add(sum, tensor(on, [count], a), tensor(on, [count], b));
    scale(product, tensor(on, [count], a), -2.5);
    fill(filled, 7);
    await assertTensor(sum, a.map((value, i) => value + b[i]), 0);
    await assertTensor(product, a.map((value) => -2.5 * value), 0);
    await assertTensor(filled, new Float32Array(count).fill(7), 0);
  });
}

test("fill() leaves what lies behind the tensor alone", async () => {
  const whole = tensor(await device(), [64], normal(64, 1));
  const before = await toArray(whole);
  fill(view(whole, [5]), 3);
  assert.deepEqual(await toArray(whole), before.map((value, i) => i < 5 ? 3 : value));
});

test("fill() reaches every element of a tensor that needs more than 65,535 workgroups", async () => {
  const on = await device();
  const count = 65_535 * 64 * 4 + 261;
  assert.deepEqual(lanes(count / 4), [32_769, 2]);
  const long = empty(on, [count], "workspace"), end = view(long, [5], (count - 5) * 4);
  fill(end, NaN);
  fill(long, 2);
  await assertTensor(end, [2, 2, 2, 2, 2], 0);
});

test("add() rejects operands of another size, naming both shapes", async () => {
  const on = await device();
  assert.throws(
    () => add(dirty(on, [2, 3]), dirty(on, [2, 3]), dirty(on, [4])),
    /add: shape \[4\] does not fit the result's \[2,3\]/,
  );
});
