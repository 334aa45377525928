import assert from "node:assert/strict";
import { after, test } from "node:test";
import { takeColumns } from "../../lib/ops/columns.ts";
import { toArray } from "../../lib/tensor.ts";
import { close, device, dirty, normal, tensor } from "./support.ts";

after(close);

for (const [rows, stride, start, width] of [[7, 20, 4, 3], [1, 3, 0, 3], [130, 37, 36, 1], [67, 516, 4, 508]]) {
  test(`takeColumns() takes ${width} of ${stride} columns of ${rows} rows, from ${start} on`, async () => {
    const on = await device(), x = normal(rows * stride, 1), y = dirty(on, [rows, width]);
    takeColumns(y, tensor(on, [rows, stride], x), start);
    const expected = Array.from(
      { length: rows },
      (_, row) => [...x.slice(row * stride + start, row * stride + start + width)],
    );
    assert.deepEqual(await toArray(y), Float32Array.from(expected.flat()));
  });
}

test("takeColumns() rejects columns that x has not, and rows that are not as many", async () => {
  const on = await device(), x = tensor(on, [2, 5], normal(10, 1));
  for (const start of [3, -1, 0.5, NaN]) {
    assert.throws(() => takeColumns(dirty(on, [2, 3]), x, start), {
      name: "UserError",
      message: `takeColumns: 3 columns from ${start} on are not within the 5 of x`,
    });
  }
  assert.throws(() => takeColumns(dirty(on, [3, 3]), x, 0), {
    name: "UserError",
    message: "takeColumns: y is f32 [3,3] where f32 or f16 [2,3] is needed",
  });
});
