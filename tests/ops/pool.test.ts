import assert from "node:assert/strict";
import { after, test } from "node:test";
import { averagePool, averagePoolBackward, maxPool, maxPoolBackward } from "../../lib/ops/pool.ts";
import type { Window } from "../../lib/ops/windows.ts";
import { empty } from "../../lib/tensor.ts";
import * as reference from "../reference/pool.ts";
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

const cases: [number[], Window][] = [
  [[2, 7, 6, 8], { size: 3, stride: 2, padding: 1 }],
  [[1, 5, 9, 3], { size: 3, stride: 2, padding: 1 }],
  [[3, 4, 4, 5], { size: 2, stride: 2, padding: 0 }],
  [[1, 3, 8, 4], { size: 2, stride: 3, padding: 1 }],
];

for (const [shape, window] of cases) {
  const count = shape.reduce((product, length) => product * length, 1);
  // Rounded, so that windows with several largest values are common; and below 0, where padding must not win.
  const x = normal(count, 1).map((value) => Math.round(2 * value) / 2 - 3);
  const { y, from, shape: outShape } = reference.maxPool(x, shape, window);
  const dy = normal(y.length, 2);

  for (const variant of rowVariants(shape[3])) {
    test(`maxPool() of [${shape}], ${window.size} x ${window.size}, stride ${window.stride} (${variant}), and its gradient equal the reference; the first of equals wins`, async () => {
      const on = await device();
      const out = dirty(on, outShape), taps = empty(on, outShape, "activations", "u32"), dx = dirty(on, shape);
      const [xt, dyt] = [tensor(on, shape, x), tensor(on, outShape, dy)];
      withCandidate(variant, () => {
        maxPool(out, taps, xt, window);
        maxPoolBackward(dx, dyt, taps, window);
      });
      await assertTensor(out, y, 0, "y");
      await assertTensor(dx, reference.maxPoolBackward(dy, from, count), undefined, "dx");
    });

    test(`averagePool() of [${shape}] (${variant}) and its gradient equal the reference`, async () => {
      const on = await device();
      const [samples, , , channels] = shape;
      const out = dirty(on, [samples, channels]), dx = dirty(on, shape), dmeans = normal(samples * channels, 3);
      const [xt, dyt] = [tensor(on, shape, x), tensor(on, [samples, channels], dmeans)];
      withCandidate(variant, () => {
        averagePool(out, xt);
        averagePoolBackward(dx, dyt);
      });
      await assertTensor(out, reference.averagePool(x, shape), undefined, "y");
      await assertTensor(dx, reference.averagePoolBackward(dmeans, shape), undefined, "dx");
    });
  }
}

test("the pool references' backwards equal finite differences of their forwards", () => {
  const shape = [2, 5, 4, 2], window = { size: 3, stride: 2, padding: 1 };
  const x = normal(80, 1);
  const { y, from } = reference.maxPool(x, shape, window);
  const dy = normal(y.length, 2), dmeans = normal(4, 3);
  const dx = reference.maxPoolBackward(dy, from, x.length);
  assertGradient((x) => weigh(reference.maxPool(x, shape, window).y, dy), x, dx, "max");
  const dxMean = reference.averagePoolBackward(dmeans, shape);
  assertGradient((x) => weigh(reference.averagePool(x, shape), dmeans), x, dxMean, "average");
});

test("maxPool() rejects a result of another size, naming both shapes", async () => {
  const on = await device();
  const x = dirty(on, [2, 7, 7, 3]), y = dirty(on, [2, 3, 3, 3]);
  assert.throws(
    () => maxPool(y, empty(on, [2, 3, 3, 3], "activations", "u32"), x, { size: 3, stride: 2, padding: 1 }),
    /maxPool: y is f32 \[2,3,3,3\] where f32 or f16 \[2,4,4,3\] is needed/,
  );
});
