import assert from "node:assert/strict";
import { after, test } from "node:test";
import { look, readReport, reportLength } from "../../lib/ops/look.ts";
import { close, device, normal, tensor } from "./support.ts";

after(close);

const count = 70_000; // more than one stride of a processor's grid

async function reportOn(block: Float32Array, limit?: number, most?: number) {
  const on = await device();
  const report = tensor(
    on,
    [reportLength(on, block.length, most)],
    new Uint32Array(reportLength(on, block.length, most)),
  );
  look(report, tensor(on, [block.length], block), limit);
  return readReport(new Uint32Array(await on.read(report)));
}

/** The sum of squares in float64. */
const squaresOf = (block: Float32Array) => block.reduce((sum, value) => sum + value ** 2, 0);

test("look() adds up the squares of all elements, whatever their number and that of the workgroups", async () => {
  for (const length of [1, 3, 4, 255, 257, 4097, count]) {
    for (const most of [1, 7, undefined]) {
      const block = normal(length, length);
      const { squares, notFiniteAt } = await reportOn(block, undefined, most);
      const expected = squaresOf(block);
      assert.ok(Math.abs(squares - expected) < 2e-6 * expected, `${length}: ${squares} instead of ${expected}`);
      assert.equal(notFiniteAt, undefined);
    }
  }
});

test("squares that f32 does not hold are added up all the same: of the largest numbers, of the smallest, and of both", async () => {
  for (const sizes of [[1e38], [1e-36], [1e30, 1e-30, 1], [2 ** 50, 2 ** -50], [1e-20, 1e-22]]) {
    const block = normal(5000, 3).map((value, i) => Math.sign(value) * sizes[i % sizes.length]);
    const { squares, notFiniteAt } = await reportOn(block);
    const expected = squaresOf(block);
    assert.ok(Math.abs(squares - expected) < 2e-6 * expected, `${sizes}: ${squares} instead of ${expected}`);
    assert.equal(notFiniteAt, undefined);
  }
});

test("look() gives the same bits in every run", async () => {
  const block = normal(count, 9);
  const { squares } = await reportOn(block);
  for (let run = 0; run < 3; run++) assert.equal((await reportOn(block)).squares, squares);
});

test("look() finds the first infinity or NaN wherever it stands, of either sign", async () => {
  const negativeNaN = new Float32Array(Uint32Array.of(0xff80_0001).buffer)[0];
  for (const value of [Infinity, -Infinity, NaN, negativeNaN]) {
    for (const at of [0, 3, 4099, count - 1]) {
      const bad = normal(count, 1);
      bad[at] = value;
      assert.equal((await reportOn(bad)).notFiniteAt, at, `${value} at ${at}`);
      bad.fill(value, at);
      assert.equal((await reportOn(bad)).notFiniteAt, at, `${value} from ${at} on`);
    }
  }
});

test("look() takes the largest and the smallest numbers for what they are", async () => {
  const block = normal(count, 1);
  block.set([3.4028234e38, -3.4028234e38, 1e-45, -1e-45, 0, -0], 500);
  assert.equal((await reportOn(block)).notFiniteAt, undefined);
});

test("look() with a limit finds the first number of that magnitude, and none below it", async () => {
  for (const limit of [2 ** 127, 2 ** 10, 2 ** -100]) {
    const below = limit * (1 - 2 ** -24);
    for (const value of [limit, -limit, 1.5 * limit, Infinity, NaN]) {
      const block = new Float32Array(count).fill(below).fill(-below, 0, 99);
      for (const at of [0, 4099, count - 1]) {
        assert.equal((await reportOn(block, limit)).notFiniteAt, undefined, `below ${limit}`);
        block[at] = value;
        assert.equal((await reportOn(block, limit)).notFiniteAt, at, `${value} at ${at}`);
        block[at] = below;
      }
    }
  }
});

test("look() rejects an f16 tensor, whose bits mean something else", async (t) => {
  const on = await device();
  if (!on.gpu.info.f16) return t.skip("this device has no f16");
  const report = tensor(on, [4], new Uint32Array(4));
  assert.throws(() => look(report, tensor(on, [4], normal(4, 1), "f16")), /x is f16 \[4\] where f32 \[4\]/);
});

test("look() rejects a report of another form", async () => {
  const on = await device();
  const report = tensor(on, [3], new Uint32Array(3));
  assert.throws(() => look(report, tensor(on, [4], normal(4, 1))), /^UserError: look: the report is \[3\]/);
});
