import assert from "node:assert/strict";
import { test } from "node:test";
import { createVerdict, type NotFinite } from "../../lib/runtime/verdict.ts";

test("a verdict is what the lowest rank has found, in whichever order they answer, and comes when all have", async () => {
  const found = [undefined, { rank: 1, parameter: "b" }, { rank: 2, parameter: "c" }];
  for (const order of [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]]) {
    const verdict = createVerdict(3);
    let isKnown = false;
    const result = verdict.result.finally(() => isKnown = true);
    const answers: Promise<NotFinite | undefined>[] = [];
    for (const rank of order) {
      await new Promise((resolve) => setTimeout(resolve));
      assert.equal(isKnown, false);
      answers.push(verdict.cast(found[rank]));
    }
    assert.deepEqual(await Promise.all([result, ...answers]), Array(4).fill(found[1]));
  }
  const good = createVerdict(2);
  assert.deepEqual(await Promise.all([good.cast(undefined), good.cast(undefined)]), [undefined, undefined]);
});

test("a rank that fails ends the wait of the others for a verdict", async () => {
  const verdict = createVerdict(2);
  const waiting = assert.rejects(verdict.cast(undefined), /rank 1 failed/);
  verdict.fail(new Error("rank 1 failed"));
  await waiting;
});
