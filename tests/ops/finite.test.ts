import assert from "node:assert/strict";
import { after, test } from "node:test";
import { findOverflow } from "../../lib/ops/finite.ts";
import { close, device, normal, tensor } from "./support.ts";

after(close);

const count = 70_000; // more than one stride of a processor's grid

async function found(...blocks: Float32Array[]): Promise<number> {
  const on = await device();
  const flag = tensor(on, [1], new Uint32Array(1));
  for (const block of blocks) findOverflow(flag, tensor(on, [block.length], block));
  return new Uint32Array(await on.read(flag))[0];
}

test("findOverflow() finds one infinity or NaN wherever it stands, of either sign, in any block", async () => {
  const negativeNaN = new Float32Array(Uint32Array.of(0xff80_0001).buffer)[0];
  for (const value of [Infinity, -Infinity, NaN, negativeNaN]) {
    for (const at of [0, 3, 4099, count - 1]) {
      const bad = normal(count, 1);
      bad[at] = value;
      assert.equal(await found(bad), 1, `${value} at ${at}`);
      assert.equal(await found(bad, normal(8, 2)), 1, `${value} at ${at}, a fine block after it`);
    }
  }
});

test("findOverflow() takes the largest and the smallest numbers for what they are", async () => {
  const block = normal(count, 1);
  block.set([3.4028234e38, -3.4028234e38, 1e-45, -1e-45, 0, -0], 500);
  assert.equal(await found(block, block), 0);
});

test("findOverflow() rejects an f16 tensor, whose bits mean something else", async (t) => {
  const on = await device();
  if (!on.gpu.info.f16) return t.skip("this device has no f16");
  const flag = tensor(on, [1], new Uint32Array(1));
  assert.throws(() => findOverflow(flag, tensor(on, [4], normal(4, 1), "f16")), /x is f16 \[4\] where f32 \[4\]/);
});
