import assert from "node:assert/strict";
import { after, test } from "node:test";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { addRelu, relu, reluBackward } from "../../lib/ops/relu.ts";
import { assertTensor, close, device, dirty, normal, tensor } from "./support.ts";

after(close);

for (const count of [1, 37, 1024, 5003]) {
  test(`relu() of ${count} elements and its backward keep what is above 0, and only that`, async () => {
    const on = await device();
    const x = normal(count, 1).map((value, i) => i % 7 === 3 ? 0 : value), dy = normal(count, 2);
    const y = dirty(on, [count]), dx = dirty(on, [count]);
    relu(y, tensor(on, [count], x));
    reluBackward(dx, tensor(on, [count], dy), y);
    await assertTensor(y, x.map((value) => Math.max(value, 0)), 0, "y");
    await assertTensor(dx, dy.map((value, i) => x[i] > 0 ? value : 0), 0, "dx");
  });
}

for (const count of [37, 1024]) {
  test(`addRelu() of ${count} elements is the ReLU of a sum`, async () => {
    const on = await device();
    const a = normal(count, 1), b = normal(count, 2), y = dirty(on, [count]);
    addRelu(y, tensor(on, [count], a), tensor(on, [count], b));
    await assertTensor(y, a.map((value, i) => Math.max(value + b[i], 0)), 0, "y");
  });

  test(`relu(), addRelu() and their backward take ${count} elements of f16`, async (t) => {
    const on = await device();
    if (!on.gpu.info.f16) return t.skip("this device has no f16");
    const round = (data: Float32Array) => fromHalf(toHalf(data));
    const a = round(normal(count, 1)), b = round(normal(count, 2));
    const [at, bt] = [tensor(on, [count], a, "f16"), tensor(on, [count], b, "f16")];
    const y = dirty(on, [count], "f16"), sum = dirty(on, [count], "f16"), dx = dirty(on, [count], "f16");
    relu(y, at);
    addRelu(sum, at, bt);
    reluBackward(dx, bt, y);
    await assertTensor(dx, b.map((value, i) => a[i] > 0 ? value : 0), 0, "dx");
    await assertTensor(y, a.map((value) => Math.max(value, 0)), 0, "y");
    await assertTensor(sum, round(a.map((value, i) => Math.max(value + b[i], 0))), 0, "sum");
  });
}

test("relu() rejects a result of another size, naming both shapes", async () => {
  const on = await device();
  assert.throws(
    () => relu(dirty(on, [2, 3]), dirty(on, [2, 4])),
    /relu: y is f32 \[2,3\] where f32 or f16 \[2,4\] is needed/,
  );
});
