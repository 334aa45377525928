import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import fc from "fast-check";
import { readable } from "../../lib/weights/dtypes.ts";
import { openTensorFile } from "../../lib/weights/safetensors.ts";
import { fileOf, valuesOf } from "./files.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-damage-"));
after(() => rmSync(folder, { recursive: true }));
const path = join(folder, "x.safetensors");

const width = { F32: 4, F16: 2, BF16: 2 };
const dtypes = Object.keys(width) as (keyof typeof width)[];

/** A good file of a few tensors with any names, shapes and bits, the tensors in another order than their bytes. */
const goodFile = fc.uniqueArray(
  fc.record({
    name: fc.string({ unit: "binary", maxLength: 12 }).filter((name) => name !== "__metadata__"),
    dtype: fc.constantFrom(...dtypes),
    shape: fc.array(fc.nat({ max: 4 }), { maxLength: 3 }),
    rank: fc.nat(),
  }),
  { maxLength: 5, selector: ({ name }) => name },
).chain((tensors) => {
  const entries: [string, unknown][] = [];
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    const end = offset + shape.reduce((product, length) => product * length, width[dtype]);
    entries.push([name, { dtype, shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const order = tensors.map(({ rank }, i) => [rank, i]).sort(([a], [b]) => a - b).map(([, i]) => entries[i]);
  const header = `{${order.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`).join()}}`;
  return fc.uint8Array({ minLength: offset, maxLength: offset }).map((body) => fileOf(header, body));
});

/** A file is refused in one line that names it, or gives what its bytes are. */
function refusedOrRight(file: Uint8Array): "refused" | "right" {
  writeFileSync(path, file);
  try {
    const opened = openTensorFile(path);
    try {
      const right = valuesOf(file);
      const names = [...opened.tensors].flatMap(([name, { dtype }]) => readable.includes(dtype) ? [name] : []);
      assert.deepEqual(new Set(names), new Set(right.keys()));
      for (const [name, { dtype }] of opened.tensors) {
        if (readable.includes(dtype)) assert.deepEqual([...opened.read(name)], right.get(name));
        else assert.throws(() => opened.read(name), { name: "UserError" });
      }
    } finally {
      opened.close();
    }
    return "right";
  } catch (error) {
    const { name, message } = error as Error;
    assert.equal(name, "UserError", message);
    assert.ok(message.startsWith(`${path}: `) && message.length < 2000, message);
    assert.doesNotMatch(message, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    return "refused";
  }
}

const settings = { seed: 12, numRuns: 200 };

test("files of any tensors give their bits", () => {
  fc.assert(fc.property(goodFile, (file) => assert.equal(refusedOrRight(file), "right")), settings);
});

test("files with changed, missing, added or moved bytes are refused or give what their bytes are", () => {
  const spot = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  const edit = fc.oneof(
    fc.record({ kind: fc.constant("set" as const), at: spot, byte: fc.nat({ max: 255 }) }),
    fc.record({
      kind: fc.constant("set" as const),
      at: spot,
      byte: fc.constantFrom(...new TextEncoder().encode('0189[]{},:"-.e\\')),
    }),
    fc.record({ kind: fc.constant("length" as const), at: fc.nat({ max: 7 }), byte: fc.nat({ max: 255 }) }),
    fc.record({ kind: fc.constant("cut" as const), at: spot, to: spot }),
    fc.record({ kind: fc.constant("end" as const), at: spot }),
    fc.record({ kind: fc.constant("insert" as const), at: spot, bytes: fc.uint8Array({ maxLength: 9 }) }),
  );
  const counts = { refused: 0, right: 0 };
  fc.assert(
    fc.property(goodFile, fc.array(edit, { minLength: 1, maxLength: 3 }), (good, edits) => {
      let file: Uint8Array = Uint8Array.from(good);
      for (const each of edits) {
        const at = Math.floor(each.at * file.length);
        const [left, right] = [[...file.subarray(0, at)], [...file.subarray(at)]];
        if (each.kind === "set") file[at] = each.byte;
        else if (each.kind === "length") file[each.at] = each.byte;
        else if (each.kind === "cut") {
          file = Uint8Array.from([...left, ...right.slice(Math.floor(each.to * right.length))]);
        } else if (each.kind === "end") file = Uint8Array.from(left);
        else file = Uint8Array.from([...left, ...each.bytes, ...right]);
      }
      counts[refusedOrRight(file)]++;
    }),
    { ...settings, numRuns: 1000 },
  );
  assert.ok(counts.refused > 500 && counts.right > 50, JSON.stringify(counts)); // both happen
});

test("headers of any values are refused or right, and take little memory", () => {
  const number = fc.oneof(
    fc.nat({ max: 16 }),
    fc.constantFrom(-0, -1, 0.5, 1e300, 2 ** 53, 2 ** 53 - 1, 2 ** 60, 2 ** 31, 2 ** 32),
  );
  const anything = fc.oneof(fc.jsonValue({ maxDepth: 2 }), number);
  const mostly = <T>(right: fc.Arbitrary<T>) =>
    fc.oneof({ weight: 5, arbitrary: right }, { weight: 1, arbitrary: anything });
  const entry = mostly(fc.record(
    {
      dtype: mostly(fc.constantFrom("F32", "F16", "BF16", "I64", "F4", "BOOL", "F99")),
      shape: mostly(fc.array(number, { maxLength: 3 })),
      data_offsets: mostly(fc.tuple(number, number)),
    },
    { requiredKeys: [] },
  ));
  const header = mostly(
    fc.dictionary(fc.constantFrom("a", "b", "__metadata__", "__proto__", "\u202e"), entry, { maxKeys: 3 }),
  );
  // JSON.stringify writes -0 as 0, which is something else.
  const write = (value: unknown): string =>
    Object.is(value, -0)
      ? "-0"
      : Array.isArray(value)
      ? `[${value.map(write).join()}]`
      : typeof value === "object" && value !== null
      ? `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}:${write(each)}`).join()}}`
      : JSON.stringify(value);
  const before = process.memoryUsage().rss;
  fc.assert(
    fc.property(
      header,
      fc.uint8Array({ maxLength: 24 }),
      fc.option(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
      (json, body, length) => {
        refusedOrRight(fileOf(write(json), body, length ?? undefined));
      },
    ),
    { ...settings, numRuns: 1000 },
  );
  assert.ok(process.memoryUsage().rss - before < 200e6);
});

test("right sizes in any notation that JSON has are sizes, others are refused", () => {
  const of = (shape: string, offsets: string) =>
    refusedOrRight(fileOf(`{"a":{"dtype":"F32","shape":${shape},"data_offsets":${offsets}}}`, new Uint8Array(8)));
  assert.equal(of("[2]", "[0,8]"), "right");
  assert.equal(of("[2e0]", "[0,0.8e1]"), "right");
  for (
    const shape of ["[-0]", "[2,-0]", "[-2,-1]", "[1.5]", "[9007199254740993]", "[null]", '["2"]', "{}", "2", "[2,[]]"]
  ) {
    assert.equal(of(shape, "[0,8]"), "refused", shape);
    assert.equal(of(shape, "[0,0]"), "refused", shape);
  }
  for (const offsets of ["[-0,8]", "[8,0]", "[0,8,8]", "[8,16]", "[-8,0]", "[0,1e300]", "[0]", "null", "[1,9]"]) {
    assert.equal(of("[2]", offsets), "refused", offsets);
  }
  // No product of these is a number of elements, whatever follows.
  const huge = `[${Array(40).fill(2 ** 52).join()},0]`;
  assert.equal(of(huge, "[0,0]"), "refused");
});
