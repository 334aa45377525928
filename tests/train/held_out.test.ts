import assert from "node:assert/strict";
import { test } from "node:test";
import { heldOut } from "../../lib/train/held_out.ts";

test("of every stretch of 1 / share numbers one is held out, in whatever order they are asked for", () => {
  for (const [share, size] of [[0.5, 2], [0.25, 4], [0.1, 10], [0.01, 100]]) {
    const isHeldOut = heldOut(share);
    const held = Array.from({ length: 60 * size }, (_, n) => isHeldOut(n));
    const places = new Set<number>();
    for (let stretch = 0; stretch < 60; stretch++) {
      const part = held.slice(stretch * size, (stretch + 1) * size);
      assert.equal(part.filter(Boolean).length, 1, `${share}, ${stretch}`);
      places.add(part.indexOf(true));
    }
    assert.ok(places.size > Math.min(size, 40) / 2, "not always the same one");
    const backwards = heldOut(share);
    for (let n = held.length - 1; n >= 0; n--) assert.equal(backwards(n), held[n]);
  }
});

test("shares that divide nothing hold out their share, and none holds out nothing", () => {
  for (const share of [0.3, 0.07, 0.4999, 1 / 3]) {
    const isHeldOut = heldOut(share);
    const count = Array.from({ length: 10_000 }, (_, n) => isHeldOut(n)).filter(Boolean).length;
    // Where stretches are no whole numbers two of them may choose the number that they share.
    assert.ok(count <= 10_000 * share + 1 && count > 9_000 * share, `${share}: ${count}`);
  }
  assert.equal([0, 1, 5].some(heldOut(0)), false);
});
