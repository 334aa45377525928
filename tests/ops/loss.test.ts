import assert from "node:assert/strict";
import { after, test } from "node:test";
import { crossEntropy, crossEntropyBackward, sum } from "../../lib/ops/loss.ts";
import { toArray } from "../../lib/tensor.ts";
import { ignored } from "../../lib/train/data.ts";
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
