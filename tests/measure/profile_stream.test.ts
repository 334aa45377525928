/** Events are read as they come: the same as `JSON.parse` finds, wherever the text is cut, and in bounded memory. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { readEvents } from "../../lib/measure/profile/json_stream.ts";
import { UserError } from "../../lib/schedules/mod.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-stream-"));
after(() => rmSync(folder, { recursive: true }));

/** A text in chunks of these sizes, over and over. */
async function* chunked(text: string, sizes: readonly number[]): AsyncIterable<Uint8Array> {
  const bytes = Buffer.from(text);
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length];
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

async function read(text: string, sizes: readonly number[]): Promise<{ events: unknown[]; header: unknown }> {
  const events: unknown[] = [];
  const { header } = await readEvents(chunked(text, sizes), (event) => events.push(event));
  return { events, header };
}

const sizes = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 5 });
const spaces = fc.constantFrom(undefined, 1, "\t");

test("an object with traceEvents gives their elements, whatever stands in and around them", async () => {
  const around = fc.dictionary(fc.string().filter((name) => name !== "traceEvents"), fc.jsonValue(), { maxKeys: 4 });
  const events = fc.array(fc.jsonValue(), { maxLength: 8 });
  await fc.assert(fc.asyncProperty(around, events, around, spaces, sizes, async (before, list, behind, space, cut) => {
    const text = JSON.stringify({ ...before, traceEvents: list, ...behind }, null, space);
    const whole = JSON.parse(text), found = await read(text, cut);
    assert.deepEqual(found.events, whole.traceEvents);
    assert.deepEqual(found.header, { ...whole, traceEvents: [] });
  }));
});

test("a list gives its elements, its last bracket there or not", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.jsonValue(), { maxLength: 8 }), spaces, sizes, async (list, space, cut) => {
      const text = JSON.stringify(list, null, space), { events } = JSON.parse(`{"events":${text}}`);
      assert.deepEqual((await read(text, cut)).events, events);
      if (list.length > 0) assert.deepEqual((await read(text.slice(0, -1), cut)).events, events);
    }),
  );
});

/** Whether a text is an object or a list. */
function isJson(text: string): boolean {
  try {
    return typeof JSON.parse(text) === "object";
  } catch {
    return false;
  }
}

test("what is no JSON is refused wherever it is cut, and what is JSON never", async () => {
  const json = fc.jsonValue().map((value) => JSON.stringify({ traceEvents: [value, { a: 'x"\\' }] }));
  await fc.assert(
    fc.asyncProperty(
      json,
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.string({ maxLength: 3 }),
      sizes,
      async (text, at, put, cut) => {
        const from = Math.floor(at * text.length);
        const changed = text.slice(0, from) + put + text.slice(from + 1);
        // Of a text that is all list the bracket may be missing, and a comma be last then.
        const closed = /^\s*\[/.test(changed) ? [`${changed}]`, `${changed.replace(/,\s*$/, "")}]`] : [];
        const right = [changed, ...closed].some(isJson);
        try {
          await read(changed, cut);
          assert.ok(right, `${changed} was read`);
        } catch (error) {
          if (!(error instanceof UserError)) throw error;
          assert.ok(!right, `${changed}: ${error.message}`);
        }
      },
    ),
    {
      numRuns: 1000,
      examples: [
        ['{"traceEvents":[{},{"a":"x\\"\\\\"}]}', 0, "[{", [1]],
        ['{"traceEvents":[1,{}]}', 0, "[[{},", [2]],
      ],
    },
  );
});

test("a key within a string, an escape, or a deeper object is no list of events", async () => {
  for (const text of ['{"a":"\\"traceEvents\\":[1]"}', '{"a":{"traceEvents":[1]}}', '{"\\"traceEvents":[1]}']) {
    assert.deepEqual((await read(text, [1])).events, [], text);
  }
  assert.deepEqual((await read('{"trace\\u0045vents":[1,2]}', [3])).events, [1, 2]);
});

test("a trace of 80 MB is read with a heap of 64 MB, which its events would not fit into", () => {
  const common = { ph: "X", pid: 1, tid: 1 };
  const args = { "Input Dims": [[256, 1024], [1024, 1024]], "Input type": ["float", "float", "Scalar"], id: 1 };
  const filler = Array.from(
    { length: 5000 },
    (_, at) => JSON.stringify({ ...common, cat: "cpu_op", name: "aten::addmm", ts: 2e9 + at, dur: 1, args }),
  ).join(",\n");
  const actions = [["F", 0, 5000], ["B", 5100, 9000]].map(([kind, start, dur]) =>
    JSON.stringify({ ...common, cat: "user_annotation", name: `PP:0${kind}0`, ts: 1e9 + Number(start), dur })
  );
  // An archive may have several parts, one after the other.
  const part = gzipSync(`${filler},\n`), repeats = Math.ceil(80e6 / filler.length);
  const path = join(folder, "large.json.gz");
  const head = gzipSync('{"distributedInfo":{"rank":0,"world_size":1},"traceEvents":[\n');
  writeFileSync(path, Buffer.concat([head, ...Array(repeats).fill(part), gzipSync(`${actions.join(",")}]}\n`)]));
  const program = fileURLToPath(new URL("profile_program.ts", import.meta.url));
  const flags = ["run", "-A", "--no-check", "--v8-flags=--max-old-space-size=64"];
  const { status, stdout, stderr } = spawnSync(process.execPath, [...flags, program, path], { encoding: "utf8" });
  assert.equal(status, 0, stderr.slice(0, 2000));
  const { f, b } = JSON.parse(stdout)[0];
  assert.deepEqual([f, b], [5, 9]);
});
