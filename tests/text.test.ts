import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { parseBytes } from "../lib/bytes.ts";
import { oneOf } from "../lib/cli/options.ts";
import { UserError } from "../lib/errors.ts";
import { createModel } from "../lib/models/registry.ts";
import { tableText } from "../lib/report/table.ts";
import { fromCsv } from "../lib/schedules/csv/csv.ts";
import { escaped, quoted, shown } from "../lib/text.ts";
import { openCheckpoint } from "../lib/weights/shards.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-text-"));
after(() => rmSync(folder, { recursive: true }));

/** What a terminal obeys or nobody sees, one of each kind, and how it is written. */
const kinds: [character: string, written: string][] = [
  ["\u0000", "\\u0000"],
  ["\u0007", "\\u0007"],
  ["\b", "\\u0008"],
  ["\t", "\\u0009"],
  ["\n", "\\u000a"],
  ["\r", "\\u000d"],
  ["\u001b", "\\u001b"],
  ["\u007f", "\\u007f"],
  ["\u0085", "\\u0085"],
  ["\u009b", "\\u009b"],
  ["\u009d", "\\u009d"],
  ["\u00ad", "\\u00ad"],
  ["\u034f", "\\u034f"],
  ["\u061c", "\\u061c"],
  ["\u115f", "\\u115f"],
  ["\u200b", "\\u200b"],
  ["\u200d", "\\u200d"],
  ["\u200e", "\\u200e"],
  ["\u200f", "\\u200f"],
  ["\u2028", "\\u2028"],
  ["\u2029", "\\u2029"],
  ["\u202a", "\\u202a"],
  ["\u202e", "\\u202e"],
  ["\u2060", "\\u2060"],
  ["\u2066", "\\u2066"],
  ["\u2069", "\\u2069"],
  ["\u3164", "\\u3164"],
  ["\ufeff", "\\ufeff"],
  ["\ufe0f", "\\ufe0f"],
  ["\ud800", "\\ud800"],
  ["\u{e0041}", "\\u{e0041}"],
];
const hostile = kinds.map(([character]) => character).join("a");

/** Independent of lib/text.ts: by code point, from the Unicode chart. */
function assertHarmless(text: string): void {
  for (const character of text) {
    const code = character.codePointAt(0)!;
    const bad = code < 0x20 || (code >= 0x7f && code < 0xa0) || [0xad, 0x34f, 0x61c, 0x3164, 0xfeff].includes(code) ||
      (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) ||
      (code >= 0xd800 && code < 0xe000) || (code >= 0xfe00 && code <= 0xfe0f) || (code >= 0xe0000 && code <= 0xe0fff);
    assert.ok(!bad, `U+${code.toString(16)} in ${JSON.stringify(text)}`);
  }
}

test("control, direction and invisible characters are written as escapes, and all else stays", () => {
  for (const [character, written] of kinds) assert.equal(escaped(`a${character}b`), `a${written}b`);
  const plain = 'Stage 2 of 4, naïve, größer, 日本語, עברית, العربية, 🙂, C:\\new "x"';
  assert.equal(escaped(plain), plain);
  assert.equal(shown(plain), plain);
  assert.equal(quoted('a"b\\c'), '"a\\"b\\\\c"');
});

test("a long text loses its middle, and no character is cut in two", () => {
  assert.equal(shown("0123456789abcdefghij", 12), "01234...ghij");
  assert.equal(shown("short", 12), "short");
  assert.equal(quoted("x".repeat(1e6)).length, 102);
  assert.equal(shown("🙂".repeat(10), 12), "🙂🙂...🙂🙂");
  assert.ok(shown("\u202e".repeat(1e6)).length <= 1200);
});

test("a UserError is one short line without anything that a terminal obeys, whatever is in it", () => {
  assert.equal(new UserError("a\n  b\r\nc").message, "a b c");
  assert.equal(new UserError("a \u001b]0;title\u0007").message, "a \\u001b]0;title\\u0007");
  assert.ok(new UserError("x".repeat(1e7)).message.length <= 2000);
  const cause = new Error("why");
  assert.equal(new UserError("what", { cause }).cause, cause);
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 5000 }), (text) => {
      const error = new UserError(text);
      assertHarmless(error.message);
      assertHarmless(String(error.stack).split("\n")[0]);
      assertHarmless(quoted(text));
    }),
    { seed: 5, numRuns: 200 },
  );
});

test("names from files and callers reach no message as they are", () => {
  const header = (object: unknown) => {
    const text = new TextEncoder().encode(JSON.stringify(object));
    const bytes = new Uint8Array(8 + text.length);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
    bytes.set(text, 8);
    return bytes;
  };
  const write = (name: string, content: Uint8Array | string) => {
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  };
  const name = `${hostile}${"n".repeat(1e6)}`;
  const index = (map: unknown) => JSON.stringify({ weight_map: map });
  const attempts: (() => unknown)[] = [
    () => fromCsv(`0F0,${hostile.replace(/[\r\n]/g, "")}`),
    () => fromCsv(`(0F0;0B0)${hostile.replace(/[\r\n]/g, "")}`),
    () => fromCsv("\u001b[2J\u202e"),
    () => createModel(hostile),
    () => parseBytes(hostile),
    () => oneOf(["a"])(hostile),
    () =>
      openCheckpoint(write("a.safetensors", header({ [name]: { dtype: "F32", shape: [1], data_offsets: [0, 3] } }))),
    () =>
      openCheckpoint(write("b.safetensors", header({ [name]: { dtype: hostile, shape: [1], data_offsets: [0, 4] } }))),
    () => openCheckpoint(write("c.safetensors", header({ [name]: 1 }))),
    () =>
      openCheckpoint(
        write("d.safetensors", header({ x: { dtype: "F32", shape: Array(1e5).fill(1), data_offsets: [0, 1] } })),
      ),
    () => openCheckpoint(write("e.json", index({ [name]: `${hostile}.safetensors` }))),
    () => openCheckpoint(write("f.json", index({ [name]: "\u202e.safetensors" }))),
    () => openCheckpoint(join(folder, "\u001b[31m\u202e.safetensors")),
  ];
  for (const attempt of attempts) {
    assert.throws(attempt, (error: Error) => {
      assertHarmless(error.message);
      assert.ok(error.message.length < 12_000);
      return true;
    });
  }
});

test("a table in the terminal shows names escaped", () => {
  const text = tableText({ columns: ["name", "value"], rows: [["a\u001b[31m\u202eb", 1]] });
  assert.ok(text.includes("a\\u001b[31m\\u202eb"));
  assertHarmless(text.replaceAll("\n", ""));
});
