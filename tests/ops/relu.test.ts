import assert from "node:assert/strict";
import { after, test } from "node:test";
import { relu, reluBackward } from "../../lib/ops/relu.ts";
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

test("relu() rejects a result of another size, naming both shapes", async () => {
  const on = await device();
  assert.throws(() => relu(dirty(on, [2, 3]), dirty(on, [2, 4])), /relu: y is f32 \[2,3\] where f32 or f16 \[2,4\] is needed/);
});
