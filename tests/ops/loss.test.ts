import assert from "node:assert/strict";
import { after, test } from "node:test";
import { crossEntropy, crossEntropyBackward, ignored, sum } from "../../lib/ops/loss.ts";
import { squaredError, squaredErrorBackward } from "../../lib/ops/squared_error.ts";
import { toArray } from "../../lib/tensor.ts";
import * as reference from "../reference/loss.ts";
import {
  assertGradient,
  assertTensor,
  close,
  device,
  dirty,
  normal,
  rowVariants,
  tensor,
  tokens,
  withCandidate,
} from "./support.ts";

after(close);

for (const [rows, width] of [[7, 20], [70, 37], [3, 516], [2, 1]]) {
  // An offset that exp() alone would not survive.
  const logits = normal(rows * width, 1).map((value, i) => 5 * value + (i < width ? 200 : -200));
  const targets = tokens(rows, width, 2);
  for (let row = 1; row < rows; row += 3) targets[row] = ignored;
  const { losses, logSumExp } = reference.crossEntropy(logits, targets, width);

  for (const variant of rowVariants(width)) {
    test(`crossEntropy() of ${rows} x ${width} (${variant}) equals the float64 reference`, async () => {
      const on = await device();
      const out = dirty(on, [rows]), outLogSumExp = dirty(on, [rows]);
      withCandidate(
        variant,
        () => crossEntropy(out, outLogSumExp, tensor(on, [rows, width], logits), tensor(on, [rows], targets)),
      );
      // The logits around 200 are float32 numbers with a last place of 1.5e-5.
      await assertTensor(out, losses, 4e-6, "losses");
      await assertTensor(outLogSumExp, logSumExp, 1e-6, "logSumExp");
    });

    test(`crossEntropyBackward() of ${rows} x ${width} (${variant}) equals the float64 reference`, async () => {
      const on = await device();
      const out = dirty(on, [rows, width]);
      withCandidate(variant, () =>
        crossEntropyBackward(
          out,
          tensor(on, [rows, width], logits),
          tensor(on, [rows], Float32Array.from(logSumExp)),
          tensor(on, [rows], targets),
          tensor(on, [1], Float32Array.of(1 / rows)),
        ));
      await assertTensor(out, reference.crossEntropyBackward(logits, targets, width, 1 / rows), 3e-5, "dlogits");
    });

    test(`label smoothing of ${rows} x ${width} (${variant}), another target to ignore, equals the float64 reference`, async () => {
      const on = await device();
      const none = 4_294_967_196, smoothing = 0.3, small = normal(rows * width, 3);
      const marked = targets.map((target) => target === ignored ? none : target);
      const [out, outLogSumExp, outGradient] = [dirty(on, [rows]), dirty(on, [rows]), dirty(on, [rows, width])];
      const [x, wanted] = [tensor(on, [rows, width], small), tensor(on, [rows], marked)];
      withCandidate(variant, () => {
        crossEntropy(out, outLogSumExp, x, wanted, { smoothing, ignored: none });
        const scale = tensor(on, [1], Float32Array.of(1 / rows));
        crossEntropyBackward(outGradient, x, outLogSumExp, wanted, scale, { smoothing, ignored: none });
      });
      const expected = reference.crossEntropy(small, marked, width, { smoothing, none });
      await assertTensor(out, expected.losses, 4e-6, "losses");
      const gradient = reference.crossEntropyBackward(small, marked, width, 1 / rows, { smoothing, none });
      await assertTensor(outGradient, gradient, 4e-6, "dlogits");
    });

    test(`squaredError() of ${rows} x ${width} (${variant}) and its gradient equal the float64 reference`, async () => {
      const on = await device();
      const y = normal(rows * width, 4), wanted = normal(rows * width, 5);
      const out = dirty(on, [rows]), outGradient = dirty(on, [rows, width]);
      withCandidate(variant, () => {
        const [a, b] = [tensor(on, [rows, width], y), tensor(on, [rows, width], wanted)];
        squaredError(out, a, b);
        squaredErrorBackward(outGradient, a, b, tensor(on, [1], Float32Array.of(0.25)));
      });
      await assertTensor(out, reference.squaredError(y, wanted, width), 2e-6, "losses");
      await assertTensor(outGradient, reference.squaredErrorBackward(y, wanted, 0.25), 2e-6, "dy");
    });
  }
}

test("crossEntropy() of a row with a NaN is NaN, and not finite where a logit is infinite", async () => {
  const on = await device();
  const logits = normal(3 * 8, 1);
  logits[13] = NaN;
  logits[18] = Infinity;
  for (const variant of rowVariants(8)) {
    const losses = dirty(on, [3]), logSumExp = dirty(on, [3]);
    withCandidate(
      variant,
      () => crossEntropy(losses, logSumExp, tensor(on, [3, 8], logits), tensor(on, [3], Uint32Array.of(0, 0, 0))),
    );
    const [fine, nan, infinite] = await toArray(losses);
    assert.ok(
      Number.isFinite(fine) && Number.isNaN(nan) && !Number.isFinite(infinite),
      `${variant}: ${nan} ${infinite}`,
    );
  }
});

test("a row with an ignored target has no loss and no gradient, not even where its logits are NaN", async () => {
  const on = await device();
  const logits = normal(2 * 8, 1).fill(NaN, 8), targets = Uint32Array.of(3, ignored);
  for (const variant of rowVariants(8)) {
    const losses = dirty(on, [2]), logSumExp = dirty(on, [2]), dlogits = dirty(on, [2, 8]);
    const [logitsTensor, targetsTensor] = [tensor(on, [2, 8], logits), tensor(on, [2], targets)];
    const one = tensor(on, [1], Float32Array.of(1));
    withCandidate(variant, () => {
      crossEntropy(losses, logSumExp, logitsTensor, targetsTensor);
      crossEntropyBackward(dlogits, logitsTensor, logSumExp, targetsTensor, one);
    });
    await assertTensor(losses, reference.crossEntropy(logits, targets, 8).losses);
    await assertTensor(dlogits, reference.crossEntropyBackward(logits, targets, 8, 1));
  }
});

test("the crossEntropy reference's backward equals finite differences of its forward", () => {
  const logits = normal(3 * 5, 1), targets = [4, ignored, 2];
  const total = (x: Float64Array) => 0.5 * reference.crossEntropy(x, targets, 5).losses.reduce((a, b) => a + b);
  assertGradient(total, logits, reference.crossEntropyBackward(logits, targets, 5, 0.5), "dlogits");
  const options = { smoothing: 0.2 };
  assertGradient(
    (x) => 0.5 * reference.crossEntropy(x, targets, 5, options).losses.reduce((a, b) => a + b),
    logits,
    reference.crossEntropyBackward(logits, targets, 5, 0.5, options),
    "dlogits with smoothing",
  );
});

test("the squaredError reference's backward equals finite differences of its forward", () => {
  const y = normal(6, 1), targets = normal(6, 2);
  const total = (x: Float64Array) => 0.5 * reference.squaredError(x, targets, 3).reduce((a, b) => a + b);
  assertGradient(total, y, reference.squaredErrorBackward(y, targets, 0.5), "dy");
});

test("cross-entropy without smoothing is what it was where logits are near the largest number", async () => {
  const on = await device();
  const logits = Float32Array.of(3e38, -3e38, 3e38, 0);
  for (const variant of rowVariants(4)) {
    const losses = dirty(on, [1]), logSumExp = dirty(on, [1]);
    withCandidate(
      variant,
      () => crossEntropy(losses, logSumExp, tensor(on, [1, 4], logits), tensor(on, [1], Uint32Array.of(0))),
    );
    await assertTensor(losses, [0], 1e-6, variant);
  }
});

for (const count of [1, 64, 1003]) {
  const x = normal(count, 1);
  const total = Array.from(x).reduce((a, b) => a + b, 0);

  test(`sum() of ${count} elements replaces and accumulates`, async () => {
    const on = await device();
    const out = dirty(on, [1]);
    sum(out, tensor(on, [count], x));
    sum(out, tensor(on, [count], x), { accumulate: true });
    await assertTensor(out, [2 * total], 2e-5);
  });
}

test("crossEntropy() rejects targets of the wrong type", async () => {
  const on = await device();
  assert.throws(
    () => crossEntropy(dirty(on, [2]), dirty(on, [2]), dirty(on, [2, 3]), dirty(on, [2])),
    /crossEntropy: targets is f32 \[2\] where u32 \[2\] is needed/,
  );
});
