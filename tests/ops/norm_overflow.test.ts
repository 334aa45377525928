import assert from "node:assert/strict";
import { after, test } from "node:test";
import { batchNorm } from "../../lib/ops/batch_norm.ts";
import { layerNorm } from "../../lib/ops/layer_norm.ts";
import { rmsNorm } from "../../lib/ops/norm.ts";
import { toArray } from "../../lib/tensor.ts";
import { close, device, dirty, normal, rowVariants, tensor, withCandidate } from "./support.ts";

after(close);

// Finite numbers whose squares are not: a deviation of 0 would make every result 0, and a diverged training a fine loss.
const rows = 3, large = 1;
for (const width of [20, 37]) {
  const x = normal(rows * width, 1).map((value, i) => Math.floor(i / width) === large ? 1e25 * value : value);
  const assertLost = (y: Float32Array, what: string) => {
    for (const [i, value] of y.entries()) {
      assert.equal(Number.isNaN(value), Math.floor(i / width) === large, `${what}: ${value} at ${i}`);
    }
  };
  for (const variant of rowVariants(width)) {
    test(`norms of rows of ${width} whose squares overflow are NaN, and of no other row (${variant})`, async () => {
      const on = await device();
      const y = dirty(on, [rows, width]), gain = tensor(on, [width], normal(width, 2));
      const bias = tensor(on, [width], normal(width, 3)), input = tensor(on, [rows, width], x);
      withCandidate(variant, () => rmsNorm(y, dirty(on, [rows]), input, gain));
      assertLost(await toArray(y), "rmsNorm");
      withCandidate(variant, () => layerNorm(y, dirty(on, [rows, 2]), input, gain, bias, 1e-5));
      assertLost(await toArray(y), "layerNorm");
    });
  }
}

test("a channel whose squares overflow is normalised to NaN, and no other channel", async () => {
  const on = await device();
  const count = 70, channels = 8;
  const x = normal(count * channels, 1).map((value, i) => i % channels === large ? 1e25 * value : value);
  const shape = [1, 7, 10, channels], each = () => tensor(on, [channels], normal(channels, 2));
  const y = dirty(on, shape);
  const statistics = { mean: dirty(on, [channels]), rstd: dirty(on, [channels]) };
  batchNorm(y, statistics, { mean: each(), variance: each() }, tensor(on, shape, x), each(), each());
  for (const [i, value] of (await toArray(y)).entries()) {
    assert.equal(Number.isNaN(value), i % channels === large, `${i}`);
  }
});
