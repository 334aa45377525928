import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterEach, beforeEach, test } from "node:test";
import { openTensorFile } from "../../lib/weights/safetensors.ts";
import { openCheckpoint } from "../../lib/weights/shards.ts";
import { fileOf } from "./files.ts";

let folder: string;
beforeEach(() => folder = mkdtempSync(join(tmpdir(), "twobp-hostile-")));
afterEach(() => rmSync(folder, { recursive: true }));

const write = (name: string, content: Uint8Array | string) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};

/** The message of a UserError: one short line without characters that a terminal obeys. */
function refusal(run: () => unknown): string {
  let message = "";
  assert.throws(run, (error: Error) => {
    message = error.message;
    assert.equal(error.name, "UserError", message);
    assert.ok(message.length < 1000, `${message.length} characters`);
    assert.doesNotMatch(message, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    return true;
  });
  return message;
}

const entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}';
const headers: Record<string, [string, RegExp]> = {
  "lists in lists": [`{"a":${"[".repeat(1e7)}${"]".repeat(1e7)}}`, /its header nests brackets more than 32 deep$/],
  "objects in objects": [`${'{"a":'.repeat(4e6)}1${"}".repeat(4e6)}`, /its header nests brackets more than 32 deep$/],
  "brackets that nothing closes": ["[".repeat(2e7), /its header nests brackets more than 32 deep$/],
  "hundreds of thousands of tensors": [
    `{${Array.from({ length: 4e5 }, (_, i) => `"${i}":${entry}`).join()}}`,
    /its header has more than 1000000 values$/,
  ],
  "a shape of millions of axes": [entry.replace("[1]", `[${"1,".repeat(5e6)}1]`), /more than 1000000 values$/],
  "a shape of thousands of axes": [
    `{"a":${entry.replace("[1]", `[${"1,".repeat(5e4)}1]`)}}`,
    /tensor "a" has 50001 axes$/,
  ],
  "a shape of long numbers": [
    `{"a":${entry.replace("[1]", `[${Array(64).fill(2 ** 52 + 1).join()}]`)}}`,
    /tensor "a" lies in 4 bytes, F32 \[4503599627370497,4503.*\.\.\..*97\] takes Infinity$/,
  ],
  "a name of megabytes": [`{"${"n".repeat(2e7)}":5}`, /tensor "n+\.\.\." is not described by an object$/],
  "a name of direction characters": [`{"${"\u202e".repeat(4e6)}":5}`, /tensor "(\\u202e)+\.\.\." is not/],
  "a name of escapes": [`{"\\u001b[2J":5}`, /tensor "\\u001b\[2J" is not described by an object$/],
  "the same name of megabytes twice": [
    `{"${"n".repeat(5e6)}":5,"${"n".repeat(5e6)}":5}`,
    /its header has "n+\.\.\." twice$/,
  ],
  "a type of megabytes": [`{"a":${entry.replace("F32", "F".repeat(2e7))}}`, /has the unknown type "\\"F+\.\.\."$/],
  "a type that is a list": [
    `{"a":${entry.replace('"F32"', `[${"1,".repeat(4e5)}1]`)}}`,
    /has the unknown type "\[1,[1,]*\.\.\."$/,
  ],
  "one name a hundred thousand times": [`{"__metadata__":{${'"a":1,'.repeat(1e5)}"b":1}}`, /its header has "a" twice$/],
};

for (const [what, [header, message]] of Object.entries(headers)) {
  test(`a header with ${what} is refused in a short line and little memory`, () => {
    const path = write("x.safetensors", fileOf(header));
    const before = process.memoryUsage().rss;
    assert.match(refusal(() => openTensorFile(path)), message);
    const more = process.memoryUsage().rss - before;
    // The file's bytes, its text, and what is parsed of it; objects for each value would take ten times as much.
    assert.ok(more < 60e6 + 5 * header.length, `${more} bytes for a header of ${header.length}`);
  });
}

test("header lengths that no file has are refused before they are read", () => {
  for (const length of [2n ** 60n, 2n ** 63n, 2n ** 64n - 1n, 100_000_001n]) {
    const path = write("x.safetensors", fileOf("{}", [], length));
    assert.match(refusal(() => openTensorFile(path)), new RegExp(`its header would have ${length} bytes$`));
  }
  const path = write("x.safetensors", fileOf("{}", [], 99_999_999n));
  assert.match(refusal(() => openTensorFile(path)), /cut off: the header alone has 99999999 bytes, the file 10$/);
});

test("an index leads to files beside it and nowhere else", () => {
  mkdirSync(join(folder, "inside"));
  write("outside.safetensors", fileOf({ a: JSON.parse(entry) }, new Uint8Array(4)));
  const shards = [
    "../outside.safetensors",
    join(folder, "outside.safetensors"),
    "../../etc/passwd",
    "/etc/passwd",
    "inside/x.safetensors",
    "..\\outside.safetensors",
    "C:\\outside.safetensors",
    "\u0000.safetensors",
    "\u202e.safetensors",
    "line\nfeed.safetensors",
    `${"n".repeat(1e6)}.safetensors`,
    "model.bin",
    "",
    "..",
  ];
  for (const shard of shards) {
    const path = write("inside/model.safetensors.index.json", JSON.stringify({ weight_map: { a: shard } }));
    const message = refusal(() => openCheckpoint(path));
    assert.equal(message, `${path}: the index names no safetensors file beside it for tensor "a"`);
  }
});

test("an index of anything is refused in a short line", () => {
  const cases: [string, RegExp][] = [
    ["[".repeat(5e6), /the index nests brackets more than 32 deep$/],
    [
      `{"weight_map":{${Array.from({ length: 1.1e6 }, (_, i) => `"${i}":0`).join()}}}`,
      /the index has more than 1000000/,
    ],
    [`{"weight_map":{"${"n".repeat(5e6)}":0}}`, /names no safetensors file beside it for tensor "n+\.\.\."$/],
    [`{"weight_map":{"${"n".repeat(5e6)}":"absent.safetensors"}}`, /^There is no file .*absent\.safetensors$/],
    ["", /the index is not JSON$/],
    ["\ufeff{}", /the index is not JSON$/],
  ];
  for (const [index, message] of cases) {
    const path = write("model.safetensors.index.json", index);
    assert.match(refusal(() => openCheckpoint(path)), message);
    assert.match(refusal(() => openCheckpoint(folder)), message);
  }
});

test("links that lead around in circles are refused, links to files are followed", () => {
  symlinkSync("loop.safetensors", join(folder, "loop.safetensors"));
  const index = write("model.safetensors.index.json", JSON.stringify({ weight_map: { a: "loop.safetensors" } }));
  for (const path of [join(folder, "loop.safetensors"), index, folder]) {
    assert.match(refusal(() => openCheckpoint(path)), /^Cannot read .*loop\.safetensors: /);
  }
  symlinkSync("model.safetensors", join(folder, "model.safetensors"));
  assert.match(refusal(() => openCheckpoint(folder)), /^Cannot read .*model\.safetensors: /);
  assert.match(
    refusal(() => openCheckpoint(join(folder, "model.safetensors", "x"))),
    /^(Cannot read|There is no file)/,
  );
  // Hugging Face's cache is made of links to files elsewhere.
  mkdirSync(join(folder, "blobs"));
  write("blobs/1", fileOf({ a: JSON.parse(entry) }, new Uint8Array(4)));
  rmSync(join(folder, "loop.safetensors"));
  symlinkSync(join("blobs", "1"), join(folder, "loop.safetensors"));
  const opened = openCheckpoint(index);
  assert.deepEqual([...opened.read("a")], [0]);
  opened.close();
});
