import assert from "node:assert/strict";
import { after, test } from "node:test";
import { embedding, embeddingBackwardWeight, packIds } from "../../lib/ops/embedding.ts";
import * as reference from "../reference/embedding.ts";
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
  weigh,
  withCandidate,
} from "./support.ts";

after(close);

for (const [rows, width, vocabulary] of [[70, 20, 9], [5, 260, 3], [37, 5, 50], [1, 4, 1], [6, 3, 2]]) {
  const ids = tokens(rows, vocabulary, 1), table = normal(vocabulary * width, 2), dy = normal(rows * width, 3);

  for (const variant of rowVariants(width)) {
    const of = `of ${rows} tokens out of ${vocabulary}, width ${width} (${variant}),`;

    test(`embedding() ${of} equals the float64 reference`, async () => {
      const on = await device();
      const out = dirty(on, [rows, width]);
      withCandidate(
        variant,
        () => embedding(out, tensor(on, [2, rows], packIds(ids)), tensor(on, [vocabulary, width], table)),
      );
      await assertTensor(out, reference.embedding(ids, table, width), 0);
    });

    test(`embeddingBackwardWeight() ${of} adds what the float64 reference says`, async () => {
      const on = await device();
      const before = normal(vocabulary * width, 4);
      const out = tensor(on, [vocabulary, width], before);
      withCandidate(
        variant,
        () => embeddingBackwardWeight(out, tensor(on, [rows, width], dy), tensor(on, [2, rows], packIds(ids))),
      );
      const gradient = reference.embeddingBackward(dy, ids, vocabulary, width);
      await assertTensor(out, gradient.map((value, i) => value + before[i]));
    });
  }
}

test("packIds() chains the positions of each token and flags all but the first", () => {
  const end = 0x7fff_ffff, later = 0x8000_0000;
  assert.deepEqual(
    [...packIds(Uint32Array.of(7, 3, 7, 7, 3))],
    [7, 3, 7, 7, 3, 2, 4, 3 + later, end + later, end + later],
  );
});

test("the embedding reference's backward equals finite differences of its forward", () => {
  const ids = [2, 0, 2], table = normal(3 * 4, 1), dy = normal(3 * 4, 2);
  const gradient = reference.embeddingBackward(dy, ids, 3, 4);
  assertGradient((x) => weigh(reference.embedding(ids, x, 4), dy), table, gradient, "dTable");
});

test("embedding() rejects ids that are not packed", async () => {
  const on = await device();
  assert.throws(
    () => embedding(dirty(on, [3, 4]), tensor(on, [3], Uint32Array.of(0, 1, 0)), dirty(on, [2, 4])),
    /embedding: ids is u32 \[3\] where u32 \[2,3\] is needed/,
  );
});
