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

test("look() finds the first infinity or NaN, and with a limit the first number of that magnitude", async () => {
  for (const value of [Infinity, -Infinity, NaN]) {
    for (const at of [0, 3, 4099, count - 1]) {
      const bad = normal(count, 1);
      bad.fill(value, at);
      assert.equal((await reportOn(bad)).notFiniteAt, at, `${value} from ${at} on`);
    }
  }
  const block = new Float32Array(count).fill(2 ** 127 * (1 - 2 ** -24));
  assert.equal((await reportOn(block, 2 ** 127)).notFiniteAt, undefined);
  block[4099] = -(2 ** 127);
  assert.equal((await reportOn(block, 2 ** 127)).notFiniteAt, 4099);
});

test("look() rejects a report of another form", async () => {
  const on = await device();
  const report = tensor(on, [3], new Uint32Array(3));
  assert.throws(() => look(report, tensor(on, [4], normal(4, 1))), /^UserError: look: the report is \[3\]/);
});
