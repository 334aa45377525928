import assert from "node:assert/strict";
import { after, test } from "node:test";
import { dropout } from "../../lib/ops/dropout.ts";
import { toArray } from "../../lib/tensor.ts";
import * as reference from "../reference/dropout.ts";
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

for (const [rows, width] of [[7, 20], [130, 37], [6, 516]]) {
  const x = normal(rows * width, 1);
  for (const variant of rowVariants(width)) {
    test(`dropout() of ${rows} x ${width} (${variant}) equals the reference, element by element`, async () => {
      const on = await device();
      for (const rate of [0.1, 0.75]) {
        const out = dirty(on, [rows, width]);
        const mask = { rate, seed: tensor(on, [2], Uint32Array.of(4_000_000_000, 3)), salt: 99 };
        withCandidate(variant, () => dropout(out, tensor(on, [rows, width], x), mask, 5));
        const expected = reference.dropout(x, width, { rate, seed: 4_000_000_000, salt: 99, firstRow: 15 });
        await assertTensor(out, expected, 2e-7);
      }
    });
  }
}

test("dropout() drops the same elements of a batch that is cut in two", async () => {
  const on = await device();
  const ones = new Float32Array(8 * 3 * 10).fill(1);
  const run = async (first: number, samples: number) => {
    const out = dirty(on, [3 * samples, 10]);
    const mask = { rate: 0.5, seed: tensor(on, [2], Uint32Array.of(7, first)), salt: 1 };
    dropout(out, tensor(on, [3 * samples, 10], ones.subarray(0, 30 * samples)), mask, 3);
    return [...await toArray(out)];
  };
  assert.deepEqual(await run(0, 8), [...await run(0, 4), ...await run(4, 4)]);
});

test("dropout() keeps the share it says, and masks of other seeds, layers and rows have nothing in common", () => {
  const ones = new Float32Array(200_000).fill(1);
  const mask = { rate: 0.3, seed: 5, salt: 17, firstRow: 0 };
  const kept = (other: Partial<reference.Mask>) => reference.dropout(ones, 500, { ...mask, ...other });
  const base = kept({});
  const share = base.filter((value) => value > 0).length / ones.length;
  assert.ok(Math.abs(share - 0.7) < 0.005, `${share}`);
  for (const other of [{ seed: 6 }, { salt: 18 }, { firstRow: 1 }, { seed: 17, salt: 6 }]) {
    const values = kept(other);
    const both = base.filter((value, i) => value > 0 && values[i] > 0).length / ones.length;
    assert.ok(Math.abs(both - 0.49) < 0.005, `${JSON.stringify(other)}: ${both}`);
  }
});

test("the dropout reference is its own gradient", () => {
  const x = normal(4 * 6, 1), dout = normal(4 * 6, 2), mask = { rate: 0.4, seed: 1, salt: 2, firstRow: 0 };
  assertGradient((x) => weigh(reference.dropout(x, 6, mask), dout), x, reference.dropout(dout, 6, mask), "dx");
});

test("dropout() rejects a seed without a sample, naming both shapes", async () => {
  const on = await device();
  const mask = { rate: 0.1, seed: tensor(on, [1], Uint32Array.of(1)), salt: 0 };
  assert.throws(
    () => dropout(dirty(on, [2, 3]), dirty(on, [2, 3]), mask, 1),
    /dropout: seed is u32 \[1\] where u32 \[2\] is needed/,
  );
});
