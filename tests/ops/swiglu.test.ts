import assert from "node:assert/strict";
import { after, test } from "node:test";
import { swiglu, swigluBackward } from "../../lib/ops/swiglu.ts";
import * as reference from "../reference/swiglu.ts";
import {
  assertGradient,
  assertTensor,
  close,
  device,
  dirty,
  normal,
  rowVariants,
  tensor,
  weigh,
  withCandidate,
} from "./support.ts";

after(close);

for (const [rows, width] of [[7, 20], [70, 5], [1, 352], [6, 300]]) {
  // Wide enough a spread to reach both ends of the sigmoid.
  const gateUp = normal(rows * 2 * width, 1).map((value) => 6 * value), dout = normal(rows * width, 2);

  for (const variant of rowVariants(width)) {
    const of = `of ${rows} x ${width} (${variant})`;

    test(`swiglu() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const out = dirty(on, [rows, width]);
      withCandidate(variant, () => swiglu(out, tensor(on, [rows, 2 * width], gateUp)));
      await assertTensor(out, reference.swiglu(gateUp, width), 1e-6);
    });

    test(`swigluBackward() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const out = dirty(on, [rows, 2 * width]);
      withCandidate(
        variant,
        () => swigluBackward(out, tensor(on, [rows, width], dout), tensor(on, [rows, 2 * width], gateUp)),
      );
      await assertTensor(out, reference.swigluBackward(dout, gateUp, width), 1e-6);
    });
  }
}

test("swiglu() and its backward stay finite at gates of -100 and 100", async () => {
  const on = await device();
  const gateUp = new Float32Array([-100, 100, 1, 1]), dout = new Float32Array([1, 1]);
  const out = dirty(on, [1, 2]), dGateUp = dirty(on, [1, 4]);
  swiglu(out, tensor(on, [1, 4], gateUp));
  swigluBackward(dGateUp, tensor(on, [1, 2], dout), tensor(on, [1, 4], gateUp));
  await assertTensor(out, [0, 100]);
  await assertTensor(dGateUp, [0, 1, 0, 100]);
});

test("the swiglu reference's backward equals finite differences of its forward", () => {
  const gateUp = normal(2 * 6, 1), dout = normal(2 * 3, 2);
  const gradient = reference.swigluBackward(dout, gateUp, 3);
  assertGradient((x) => weigh(reference.swiglu(x, 3), dout), gateUp, gradient, "dGateUp");
});

test("swiglu() rejects a gate without its up projection, naming both shapes", async () => {
  const on = await device();
  assert.throws(
    () => swiglu(dirty(on, [2, 3]), dirty(on, [2, 3])),
    /swiglu: gateUp is f32 \[2,3\] where f32 or f16 \[2,6\] is needed/,
  );
});
