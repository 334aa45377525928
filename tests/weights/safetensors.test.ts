import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { type NamedTensor, openTensorFile, writeTensorFile } from "../../lib/weights/safetensors.ts";
import { openCheckpoint } from "../../lib/weights/shards.ts";
import { generator } from "../../lib/random.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-weights-"));
after(() => rmSync(folder, { recursive: true }));
const inFolder = (name: string) => join(folder, name);

const tensor = (name: string, shape: number[], values: number[]): NamedTensor => ({
  name,
  shape,
  values: () => Float32Array.from(values),
});

/** A file with any header and any bytes behind it. */
function raw(name: string, header: unknown, body: Uint8Array | number[] = [], length?: number | bigint): string {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const prefix = new Uint8Array(BigUint64Array.of(BigInt(length ?? text.length)).buffer);
  writeFileSync(
    inFolder(name),
    [prefix, text, Uint8Array.from(body)].reduce((all, part) => {
      const joined = new Uint8Array(all.length + part.length);
      joined.set(all);
      joined.set(part, all.length);
      return joined;
    }, new Uint8Array()),
  );
  return inFolder(name);
}

const f32 = (shape: number[], start: number, end: number) => ({ dtype: "F32", shape, data_offsets: [start, end] });

function readAll(path: string): Record<string, number[]> {
  const file = openCheckpoint(path);
  try {
    return Object.fromEntries([...file.tensors.keys()].map((name) => [name, [...file.read(name)]]));
  } finally {
    file.close();
  }
}

test("tensors come back from a file as they were written", () => {
  const path = inFolder("some.safetensors");
  const tensors = [
    tensor("b", [2, 3], [1, 2, 3, 4, 5, -6.5]),
    tensor("scalar", [], [NaN]),
    tensor("nothing", [0, 4], []),
    tensor("__proto__", [1], [7]),
    tensor('an "odd" \n näme', [1], [Infinity]),
  ];
  writeTensorFile(path, tensors);
  const file = openTensorFile(path);
  assert.deepEqual([...file.tensors.keys()], tensors.map(({ name }) => name));
  for (const { name, shape, values } of tensors) {
    assert.deepEqual(file.tensors.get(name)!.shape, shape);
    assert.deepEqual(file.read(name), values());
  }
  file.close();
  assert.deepEqual(readdirSync(folder), ["some.safetensors"]);
});

test("other types can be listed, and are not read as weights", () => {
  const header = { batches: { dtype: "I64", shape: [], data_offsets: [0, 8] }, a: f32([1], 8, 12) };
  const path = raw("counters.safetensors", header, new Uint8Array(12));
  const file = openTensorFile(path);
  assert.equal(file.tensors.get("batches")!.dtype, "I64");
  assert.throws(() => file.read("batches"), {
    name: "UserError",
    message: `${path}: tensor "batches" is I64; what can be read is F32, F16, BF16`,
  });
  assert.deepEqual([...file.read("a")], [0]);
  file.close();
});

test("F16 and BF16 become f32", () => {
  const path = raw(
    "halves.safetensors",
    {
      f16: { dtype: "F16", shape: [8], data_offsets: [0, 16] },
      bf16: { dtype: "BF16", shape: [4], data_offsets: [16, 24] },
    },
    new Uint8Array(
      Uint16Array.of(
        ...[0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x8000, 0xfc00, 0x7e00],
        ...[0x3f80, 0xc049, 0x0001, 0x7f80],
      ).buffer,
    ),
  );
  const { f16, bf16 } = readAll(path);
  assert.deepEqual(f16, [1, -2, 65504, 2 ** -24, 1023 * 2 ** -24, -0, -Infinity, NaN]);
  assert.deepEqual(bf16, [1, -3.140625, 2 ** -133, Infinity]);
});

test("a write that fails leaves the file of before, and nothing else", () => {
  const path = inFolder("kept.safetensors");
  writeTensorFile(path, [tensor("a", [1], [1])]);
  const names = readdirSync(folder);
  assert.throws(
    () => writeTensorFile(path, [tensor("a", [1], [2]), tensor("b", [2], [1, 2, 3])]),
    /tensor "b" has 3 elements, its shape is \[2\]/,
  );
  assert.deepEqual(readAll(path), { a: [1] });
  assert.deepEqual(readdirSync(folder), names);
});

test("what is wrong with a file is said in one line that names file and tensor", () => {
  const cases: [string, string, string][] = [
    ["empty", (writeFileSync(inFolder("empty"), ""), inFolder("empty")), "not a safetensors file: it has 0 bytes"],
    ["no header", raw("x1", "{}", [], 50), "cut off: the header alone has 50 bytes, the file 10"],
    [
      "absurd header",
      raw("x2", "{}", [], 2n ** 63n),
      "not a safetensors file: its header would have 9223372036854775808 bytes",
    ],
    ["no JSON", raw("x3", "{nonsense}"), "not a safetensors file: its header is not JSON"],
    ["a list", raw("x4", "[]"), "not a safetensors file: its header is not an object"],
    [
      "metadata",
      raw("x5", { __metadata__: { a: 1 } }),
      "not a safetensors file: its __metadata__ is not an object of texts",
    ],
    ...[[], "x", { a: null }].map((metadata, i): [string, string, string] => [
      "metadata",
      raw(`m${i}`, { __metadata__: metadata }),
      "not a safetensors file: its __metadata__ is not an object of texts",
    ]),
    [
      "duplicate",
      raw("x6", `{"a":${JSON.stringify(f32([1], 0, 4))},"\\u0061":${JSON.stringify(f32([1], 4, 8))}}`, [
        ...[1, 2, 3, 4, 5, 6, 7, 8],
      ]),
      'not a safetensors file: its header has "a" twice',
    ],
    [
      "truncated",
      raw("x7", { a: f32([2], 0, 8) }, [1, 2, 3, 4]),
      'cut off: tensor "a" ends at byte 70, the file at 66',
    ],
    ["oversized", raw("x8", { a: f32([1], 0, 4) }, [1, 2, 3, 4, 5]), 'too long: 1 bytes follow tensor "a"'],
    [
      "overlap",
      raw("x9", { a: f32([2], 0, 8), b: f32([2], 4, 12) }, new Uint8Array(12)),
      'tensor "b" overlaps tensor "a" by 4 bytes',
    ],
    [
      "gap",
      raw("x10", { a: f32([1], 0, 4), b: f32([1], 8, 12) }, new Uint8Array(12)),
      '4 bytes belong to nothing between tensor "a" and tensor "b"',
    ],
    ["shape", raw("x11", { a: f32([3], 0, 8) }, new Uint8Array(8)), 'tensor "a" lies in 8 bytes, F32 [3] takes 12'],
    ["negative", raw("x12", { a: f32([-1, -2], 0, 8) }), 'tensor "a" has no shape of whole numbers'],
    [
      "huge",
      raw("x13", { a: f32([2 ** 40, 2 ** 40], 0, 8) }),
      `tensor "a" lies in 8 bytes, F32 [${2 ** 40},${2 ** 40}] takes ${2 ** 82}`,
    ],
    ["backwards", raw("x14", { a: f32([1], 8, 4) }), 'tensor "a" lies in -4 bytes, F32 [1] takes 4'],
    ["offsets", raw("x15", { a: { dtype: "F32", shape: [1] } }), 'tensor "a" has no pair of data_offsets'],
    ["no object", raw("x16", { a: 5 }), 'tensor "a" is not described by an object'],
    ["type", raw("x17", { a: { ...f32([1], 0, 4), dtype: "F99" } }), 'tensor "a" has the unknown type "\\"F99\\""'],
    [
      "long name",
      raw("x18", { ["a".repeat(200) + "\n"]: 5 }),
      `tensor "${"a".repeat(97)}..." is not described by an object`,
    ],
  ];
  for (const [what, path, message] of cases) {
    assert.throws(() => openTensorFile(path), { name: "UserError", message: `${path}: ${message}` }, what);
  }
  assert.throws(() => openTensorFile(inFolder("none")), {
    name: "UserError",
    message: `There is no file ${inFolder("none")}`,
  });
  assert.throws(() => openTensorFile("/dev/null"), {
    name: "UserError",
    message: "Cannot read /dev/null: it is not a file",
  });
});

test("a file that shrinks while it is open is not read as zeros", () => {
  const path = inFolder("shrinks.safetensors");
  writeTensorFile(path, [tensor("a", [2], [1, 2])]);
  const file = openTensorFile(path);
  truncateSync(path, readFileSync(path).length - 3);
  assert.throws(() => file.read("a"), /shrinks.safetensors: cut off while it was read, tensor "a" is incomplete$/);
  file.close();
});

test("100 MB of noise are refused at once", () => {
  const noise = new Uint8Array(100_000_000);
  const random = generator("noise");
  for (let i = 0; i < 1_000_000; i++) noise[i] = random.integer(256);
  for (let at = 1_000_000; at < noise.length; at += 1_000_000) noise.copyWithin(at, 0, 1_000_000);
  const path = inFolder("noise.safetensors");
  writeFileSync(path, noise);
  const start = performance.now();
  assert.throws(() => openTensorFile(path), /^UserError: .*noise.safetensors: not a safetensors file/);
  assert.ok(performance.now() - start < 100);
  // The same with a plausible header length in front: read, and found to be no text.
  noise.set(new Uint8Array(BigUint64Array.of(90_000_000n).buffer));
  writeFileSync(path, noise);
  assert.throws(() => openTensorFile(path), /^UserError: .*not a safetensors file: its header is not UTF-8$/);
  rmSync(path);
});

test("a damaged file is either refused in one line or still a file of whole tensors (3,000 mutations)", () => {
  const path = inFolder("good.safetensors");
  writeTensorFile(path, [
    tensor("embedding.weight", [3, 2], [1, 2, 3, 4, 5, 6]),
    tensor("norm.weight", [4], [1, 1, 1, 1]),
    tensor("head.weight", [2, 2], [1, 2, 3, 4]),
  ]);
  const good = readFileSync(path);
  const random = generator("mutations");
  const digits = new TextEncoder().encode('0123456789[]{},:"');
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    let bytes = Uint8Array.from(good);
    for (let change = 0; change <= random.integer(3); change++) {
      const at = random.integer(bytes.length);
      const to = at + random.integer(bytes.length - at);
      switch (random.integer(5)) {
        case 0:
          bytes[at] = random.integer(256);
          break;
        case 1:
          bytes[at] = digits[random.integer(digits.length)];
          break;
        case 2: // cut
          bytes = Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(to)]);
          break;
        case 3: // double
          bytes = Uint8Array.from([...bytes.subarray(0, to), ...bytes.subarray(at)]);
          break;
        case 4:
          bytes[random.integer(8)] = random.integer(256);
      }
      if (bytes.length === 0) break;
    }
    const damaged = inFolder("damaged.safetensors");
    writeFileSync(damaged, bytes);
    try {
      for (const values of Object.values(readAll(damaged))) assert.ok(values.length <= 64);
    } catch (error) {
      refused++;
      const { name, message } = error as Error;
      assert.equal(name, "UserError", message);
      assert.ok(message.includes(damaged) && !/[\n\r]/.test(message), message);
    }
  }
  assert.ok(refused > 2000, `${refused} refused`);
});

function shards(name: string, index: unknown): string {
  const path = inFolder(`${name}.safetensors.index.json`);
  writeFileSync(path, typeof index === "string" ? index : JSON.stringify(index));
  return path;
}

test("several shards are one checkpoint", () => {
  writeTensorFile(inFolder("one.safetensors"), [tensor("a", [1], [1]), tensor("b", [2], [2, 3])]);
  writeTensorFile(inFolder("two.safetensors"), [tensor("c", [1], [4])]);
  const index = { metadata: {}, weight_map: { a: "one.safetensors", b: "one.safetensors", c: "two.safetensors" } };
  assert.deepEqual(readAll(shards("model", index)), { a: [1], b: [2, 3], c: [4] });
  assert.deepEqual(readAll(folder), { a: [1], b: [2, 3], c: [4] }); // found by its name in the folder
});

test("tensors that the index does not list are read, as transformers does, but not those in two shards", () => {
  writeTensorFile(inFolder("one.safetensors"), [tensor("a", [1], [1]), tensor("b", [2], [2, 3])]);
  writeTensorFile(inFolder("two.safetensors"), [tensor("c", [1], [4])]);
  const index = { weight_map: { a: "one.safetensors", c: "two.safetensors" } };
  assert.deepEqual(readAll(shards("model", index)), { a: [1], b: [2, 3], c: [4] });
  writeTensorFile(inFolder("two.safetensors"), [tensor("c", [1], [4]), tensor("b", [2], [2, 3])]);
  const path = shards("model", index);
  assert.throws(() => openCheckpoint(path), {
    name: "UserError",
    message: `${path}: tensor "b" is in two.safetensors, and in one.safetensors as well`,
  });
});

test("__metadata__ that is null is none, as for the format's own implementation", () => {
  const path = raw("x", { __metadata__: null, a: f32([1], 0, 4) }, [0, 0, 0, 64]);
  const file = openTensorFile(path);
  assert.deepEqual([file.metadata, file.read("a")], [new Map(), Float32Array.of(2)]);
  file.close();
});

test("shards that do not fit their index are refused", () => {
  writeTensorFile(inFolder("one.safetensors"), [tensor("a", [1], [1])]);
  writeTensorFile(inFolder("two.safetensors"), [tensor("a", [1], [1]), tensor("c", [1], [4])]);
  writeTensorFile(inFolder("three.safetensors"), [tensor("a", [1], [1]), tensor("b", [1], [1])]);
  const cases: [unknown, string][] = [
    [{ weight_map: { a: "one.safetensors", b: "one.safetensors" } }, 'tensor "b" is not in one.safetensors'],
    [
      { weight_map: { b: "three.safetensors", c: "two.safetensors" } },
      'tensor "a" is in two.safetensors, and in three.safetensors as well',
    ],
    [
      { weight_map: { a: "one.safetensors", c: "two.safetensors" } },
      'tensor "a" is in two.safetensors, the index has it in one.safetensors',
    ],
    [
      { weight_map: { a: "../one.safetensors" } },
      'the index names no safetensors file beside it for tensor "a"',
    ],
    [{ weight_map: { a: 3 } }, 'the index names no safetensors file beside it for tensor "a"'],
    [{ weight_map: [] }, "the index has no weight_map"],
    ["null", "the index has no weight_map"],
    ["{", "the index is not JSON"],
    ['{"weight_map":{"a":"one.safetensors","a":"two.safetensors"}}', 'the index has "a" twice'],
  ];
  for (const [index, message] of cases) {
    const path = shards("bad", index);
    assert.throws(() => openCheckpoint(path), { name: "UserError", message: `${path}: ${message}` });
  }
  const path = shards("bad", { weight_map: { a: "four.safetensors" } });
  assert.throws(() => openCheckpoint(path), {
    name: "UserError",
    message: `There is no file ${inFolder("four.safetensors")}`,
  });
});
