import assert from "node:assert/strict";
import { after, test } from "node:test";
import { findNotFinite, notFiniteAt } from "../../lib/ops/finite.ts";
import { close, device, normal, tensor } from "./support.ts";

after(close);

const count = 70_000; // more than one stride of a processor's grid

async function found(block: Float32Array, limit?: number): Promise<number | undefined> {
  const on = await device();
  const flag = tensor(on, [1], new Uint32Array(1));
  findNotFinite(flag, tensor(on, [block.length], block), limit);
  return notFiniteAt(new Uint32Array(await on.read(flag))[0]);
}

test("findNotFinite() finds the first infinity or NaN wherever it stands, of either sign", async () => {
  const negativeNaN = new Float32Array(Uint32Array.of(0xff80_0001).buffer)[0];
  for (const value of [Infinity, -Infinity, NaN, negativeNaN]) {
    for (const at of [0, 3, 4099, count - 1]) {
      const bad = normal(count, 1);
      bad[at] = value;
      assert.equal(await found(bad), at, `${value} at ${at}`);
      bad.fill(value, at);
      assert.equal(await found(bad), at, `${value} from ${at} on`);
    }
  }
});

test("findNotFinite() takes the largest and the smallest numbers for what they are", async () => {
  const block = normal(count, 1);
  block.set([3.4028234e38, -3.4028234e38, 1e-45, -1e-45, 0, -0], 500);
  assert.equal(await found(block), undefined);
});

test("findNotFinite() with a limit finds the first number of that magnitude, and none below it", async () => {
  for (const limit of [2 ** 127, 2 ** 10, 2 ** -100]) {
    const below = limit * (1 - 2 ** -24);
    for (const value of [limit, -limit, 1.5 * limit, Infinity, NaN]) {
      const block = new Float32Array(count).fill(below).fill(-below, 0, 99);
      for (const at of [0, 4099, count - 1]) {
        assert.equal(await found(block, limit), undefined, `below ${limit}`);
        block[at] = value;
        assert.equal(await found(block, limit), at, `${value} at ${at}`);
        block[at] = below;
      }
    }
  }
});

test("findNotFinite() rejects an f16 tensor, whose bits mean something else", async (t) => {
  const on = await device();
  if (!on.gpu.info.f16) return t.skip("this device has no f16");
  const flag = tensor(on, [1], new Uint32Array(1));
  assert.throws(() => findNotFinite(flag, tensor(on, [4], normal(4, 1), "f16")), /x is f16 \[4\] where f32 \[4\]/);
});
