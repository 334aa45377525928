import assert from "node:assert/strict";
import { after, test } from "node:test";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { add, fill, lanes, scale, strides } from "../../lib/ops/elementwise.ts";
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

for (const count of [3, 1024]) {
  test(`add() of ${count} elements reads f16 and f32 side by side and writes f16`, async (t) => {
    const on = await device();
    if (!on.gpu.info.f16) return t.skip("this device has no f16");
    const a = normal(count, 1), b = normal(count, 2);
    const sum = dirty(on, [count], "f16");
    add(sum, tensor(on, [count], a, "f16"), tensor(on, [count], b));
    const halves = fromHalf(toHalf(a));
    await assertTensor(sum, fromHalf(toHalf(b.map((value, i) => halves[i] + value))), 0);
  });
}

test("fill() leaves what lies behind the tensor alone", async () => {
  const whole = tensor(await device(), [64], normal(64, 1));
  const before = await toArray(whole);
  fill(view(whole, [5]), 3);
  assert.deepEqual(await toArray(whole), before.map((value, i) => i < 5 ? 3 : value));
});

test("fill() reaches every element of a tensor too long for one stride of the grid", async () => {
  const on = await device();
  const count = on.gpu.info.software ? 1_000_004 : 65_535 * 64 * 4 + 260;
  assert.ok(strides(on, count / 4)[0] * 64 < count / 4);
  const long = empty(on, [count], "workspace");
  fill(long, NaN);
  fill(long, 2);
  assert.ok((await toArray(long)).every((value) => value === 2));
});

test("lanes() spreads a grid over two axes beyond 65,535 workgroups, and covers every invocation", () => {
  assert.deepEqual(lanes(65_535 * 64), [65_535, 1]);
  for (const count of [65_535 * 64 + 1, 10_000_000, 2 ** 31]) {
    const [x, y] = lanes(count);
    assert.ok(
      x <= 65_535 && y <= 65_535 && x * y * 64 >= count && x * y * 64 < count + 64 * y,
      `${count}: ${x} x ${y}`,
    );
  }
});

test("add() rejects operands of another size, naming both shapes", async () => {
  const on = await device();
  assert.throws(
    () => add(dirty(on, [2, 3]), dirty(on, [2, 3]), dirty(on, [4])),
    /add: shape \[4\] does not fit the result's \[2,3\]/,
  );
});
