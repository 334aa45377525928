import assert from "node:assert/strict";
import { test } from "node:test";
import { createLossScale, growthInterval, initialLossScale } from "../../lib/train/loss_scale.ts";

test("the loss scale halves on overflow and doubles after enough good steps in a row", () => {
  const scale = createLossScale();
  assert.equal(scale.value, initialLossScale);
  for (let step = 1; step < growthInterval; step++) scale.update(false);
  assert.equal(scale.value, initialLossScale);
  scale.update(true); // the row is broken
  assert.equal(scale.value, initialLossScale / 2);
  for (let step = 1; step < growthInterval; step++) scale.update(false);
  assert.equal(scale.value, initialLossScale / 2);
  scale.update(false);
  assert.equal(scale.value, initialLossScale);
});

test("a loss scale of 1 cannot shrink: overflow there is not its fault", () => {
  const scale = createLossScale(2);
  assert.equal(scale.canShrink, true);
  scale.update(true);
  assert.equal(scale.value, 1);
  assert.equal(scale.canShrink, false);
});

test("a loss scale is a power of two", () => {
  for (const bad of [0, -4, 3, 0.5, NaN, Infinity, 2 ** 61]) {
    assert.throws(() => createLossScale(bad), /A loss scale is a power of two, 1 to 2\^60, not/, `${bad}`);
  }
});
