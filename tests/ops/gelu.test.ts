import assert from "node:assert/strict";
import { after, test } from "node:test";
import { gelu, geluBackward } from "../../lib/ops/gelu.ts";
import * as reference from "../reference/gelu.ts";
import { assertGradient, assertTensor, close, device, dirty, normal, tensor, weigh } from "./support.ts";

after(close);

for (const form of ["erf", "tanh"] as const) {
  for (const count of [1, 37, 1024, 5003]) {
    const x = normal(count, 1).map((value) => 2 * value), dout = normal(count, 2);

    test(`gelu() of ${count} elements (${form}) and its backward equal the float64 reference`, async () => {
      const on = await device();
      const out = dirty(on, [count]), dx = dirty(on, [count]);
      gelu(out, tensor(on, [count], x), form);
      geluBackward(dx, tensor(on, [count], dout), tensor(on, [count], x), form);
      await assertTensor(out, reference.gelu(x, form), 1e-6, "out");
      await assertTensor(dx, reference.geluBackward(dout, x, form), 1e-6, "dx");
    });
  }

  test(`gelu() (${form}) and its backward are within 1e-6 all along from -6 to 6, and keep to 0 and x at the ends`, async () => {
    const on = await device();
    const x = Float32Array.from({ length: 1200 }, (_, i) => i / 100 - 6);
    const ones = new Float32Array(1200).fill(1);
    const out = dirty(on, [1200]), dx = dirty(on, [1200]);
    gelu(out, tensor(on, [1200], x), form);
    geluBackward(dx, tensor(on, [1200], ones), tensor(on, [1200], x), form);
    await assertTensor(out, reference.gelu(x, form), 3e-7, "out"); // of 6
    await assertTensor(dx, reference.geluBackward(ones, x, form), 1e-6, "dx");
    const ends = dirty(on, [4]), dends = dirty(on, [4]);
    const far = tensor(on, [4], Float32Array.of(-1000, -20, 20, 1000));
    gelu(ends, far, form);
    geluBackward(dends, tensor(on, [4], ones.subarray(0, 4)), far, form);
    await assertTensor(ends, [0, 0, 20, 1000]);
    await assertTensor(dends, [0, 0, 1, 1]);
  });

  test(`the gelu reference's backward (${form}) equals finite differences of its forward`, () => {
    const x = normal(40, 1).map((value) => 2 * value), dout = normal(40, 2);
    assertGradient((x) => weigh(reference.gelu(x, form), dout), x, reference.geluBackward(dout, x, form), "dx");
  });
}

test("the error function of the reference takes its known values", () => {
  for (const [x, value] of [[0.5, 0.5204998778130465], [2.9, 0.9999589021219005], [3.1, 0.9999883513426328]]) {
    assert.ok(Math.abs(reference.erf(x) - value) < 1e-15 && Math.abs(reference.erf(-x) + value) < 1e-15, `erf(${x})`);
  }
});

test("gelu() rejects a result of another size, naming both shapes", async () => {
  const on = await device();
  assert.throws(
    () => gelu(dirty(on, [2, 3]), dirty(on, [2, 4]), "erf"),
    /gelu: out is f32 \[2,3\] where f32 or f16 \[2,4\] is needed/,
  );
});
