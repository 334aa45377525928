import assert from "node:assert/strict";
import { after, test } from "node:test";
import { rmsNorm, rmsNormBackwardInput, rmsNormSums } from "../../lib/ops/norm.ts";
import * as reference from "../reference/norm.ts";
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

const shapes: [number, number][] = [[7, 20], [1, 3], [130, 37], [67, 516], [3, 4]];

for (const [rows, width] of shapes) {
  for (const variant of rowVariants(width)) {
    const of = `of ${rows} x ${width} (${variant})`;
    const x = normal(rows * width, 1), gain = normal(width, 2), dy = normal(rows * width, 3);
    const { y, rstd } = reference.rmsNorm(x, gain);
    const { dx, dgain } = reference.rmsNormBackward(dy, x, rstd, gain);

    test(`rmsNorm() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const out = dirty(on, [rows, width]), outRstd = dirty(on, [rows]);
      withCandidate(variant, () => rmsNorm(out, outRstd, tensor(on, [rows, width], x), tensor(on, [width], gain)));
      await assertTensor(out, y, undefined, "y");
      await assertTensor(outRstd, rstd, undefined, "rstd");
    });

    test(`rmsNormBackwardInput() ${of} equals the float64 reference, with and without a residual`, async () => {
      const on = await device();
      const shape = [rows, width];
      const residual = normal(rows * width, 4);
      for (const rest of [undefined, residual]) {
        const out = dirty(on, shape);
        withCandidate(variant, () =>
          rmsNormBackwardInput(
            out,
            tensor(on, shape, dy),
            tensor(on, shape, x),
            tensor(on, [rows], Float32Array.from(rstd)),
            tensor(on, [width], gain),
            rest && tensor(on, shape, rest),
          ));
        await assertTensor(out, dx.map((value, i) => value + (rest ? rest[i] : 0)), undefined, "dx");
      }
    });

    test(`rmsNormSums() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const out = dirty(on, [width]);
      withCandidate(variant, () =>
        rmsNormSums(
          out,
          tensor(on, [rows, width], dy),
          tensor(on, [rows, width], x),
          tensor(on, [rows], Float32Array.from(rstd)),
        ));
      await assertTensor(out, dgain, 4e-6, "dgain");
    });
  }
}

test("the rmsNorm reference's backward equals finite differences of its forward", () => {
  const x = normal(3 * 5, 1), gain = normal(5, 2), dy = normal(3 * 5, 3);
  const { rstd } = reference.rmsNorm(x, gain);
  const { dx, dgain } = reference.rmsNormBackward(dy, x, rstd, gain);
  assertGradient((x) => weigh(reference.rmsNorm(x, gain).y, dy), x, dx, "dx");
  assertGradient((gain) => weigh(reference.rmsNorm(x, gain).y, dy), gain, dgain, "dgain");
});

test("rmsNorm() rejects a gain of the wrong length, naming both shapes", async () => {
  const on = await device();
  assert.throws(
    () => rmsNorm(dirty(on, [2, 3]), dirty(on, [2]), dirty(on, [2, 3]), dirty(on, [4])),
    /rmsNorm: gain is f32 \[4\] where f32 or f16 \[3\] is needed/,
  );
});

test("rmsNorm() takes tensors with more axes as rows", async () => {
  const on = await device();
  const x = normal(2 * 3 * 8, 1), gain = normal(8, 2);
  const out = dirty(on, [2, 3, 8]), rstd = dirty(on, [2, 3]);
  rmsNorm(out, rstd, tensor(on, [2, 3, 8], x), tensor(on, [8], gain));
  const expected = reference.rmsNorm(x, gain);
  await assertTensor(out, expected.y);
});

test("rmsNorm() reaches every row where each has a workgroup and they are more than 65,535", async () => {
  const on = await device();
  const rows = 65_540;
  // SwiftShader takes 0.1 ms for a workgroup with barriers, 7 s for all of them.
  const variant = on.gpu.info.driver === "bundled" ? "plain" : "group";
  const x = normal(rows * 2, 1), gain = normal(2, 2);
  const out = dirty(on, [rows, 2]), rstd = dirty(on, [rows]);
  withCandidate(variant, () => rmsNorm(out, rstd, tensor(on, [rows, 2], x), tensor(on, [2], gain)));
  await assertTensor(out, reference.rmsNorm(x, gain).y, 4e-6);
});

test("rmsNormSums() adds up all blocks where rows are so many that blocks grow", async () => {
  const on = await device();
  const rows = 8_300, width = 3;
  const x = normal(rows * width, 1), dy = normal(rows * width, 3), rstd = normal(rows, 2);
  const out = dirty(on, [width]);
  const shape = [rows, width];
  withCandidate(
    "group",
    () => rmsNormSums(out, tensor(on, shape, dy), tensor(on, shape, x), tensor(on, [rows], rstd)),
  );
  const expected = new Float64Array(width);
  for (let i = 0; i < rows * width; i++) expected[i % width] += dy[i] * x[i] * rstd[Math.floor(i / width)];
  await assertTensor(out, expected, 1e-5, "dgain");
});
