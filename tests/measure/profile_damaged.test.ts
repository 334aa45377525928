/** Files that are no traces, or not whole: each is refused in one line that names it and says what would be right. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { fromTrace } from "../../lib/measure/mod.ts";
import { chromeTrace } from "../../lib/report/mod.ts";
import { generate, simulate, unitCosts, UserError } from "../../lib/schedules/mod.ts";
import { sourcesOf, torchTraces } from "./torch_trace.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-traces-"));
after(() => rmSync(folder, { recursive: true }));
const file = (name: string, content: string | Uint8Array) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};
const real = (rank: number) => fileURLToPath(new URL(`../fixtures/traces/1f1b-1.rank${rank}.json.gz`, import.meta.url));

const schedule = generate("1f1b-1", { devices: 3 });
const texts = torchTraces(schedule, unitCosts({ f: 2, i: 2, w: 2 }));
const changed = (
  rank: number,
  change: (trace: { traceEvents: Record<string, unknown>[]; [name: string]: unknown }) => void,
) => {
  const trace = JSON.parse(texts[rank]);
  change(trace);
  return JSON.stringify(trace);
};
const event = (name: string, more: object = {}) =>
  JSON.stringify({ traceEvents: [{ ph: "X", cat: "user_annotation", name, ts: 1, dur: 1, ...more }] });

/** Of three ranks, the last of which is of another run. */
const mixed = (hosts: string[], other: { ahead?: number[]; slow?: number[] }) => {
  const run = { hosts, steps: 5 }, costs = unitCosts({ f: 2, i: 2, w: 2 });
  return [
    ...torchTraces(schedule, costs, run).slice(0, 2),
    torchTraces(schedule, costs, { ...run, ...other })[2],
  ];
};

const refused: [what: string, texts: string[], message: RegExp][] = [
  ["an empty text", [""], /^rank0\.json: it is empty$/],
  [
    "a rank of another run on the same machine, a minute later,",
    mixed([], { ahead: [60_000, 60_000, 60_000] }),
    /^rank0\.json and rank2\.json are of one machine \(host\), and 59\.\d+ s lie between their steps: they are of different/,
  ],
  [
    "a rank of another run, whose steps are longer,",
    mixed(["a", "b", "c"], { slow: [3, 3, 3, 3, 3] }),
    /^rank\d\.json and rank\d\.json contradict each other: .* a message is used \d+\.\d ms before it is made; give the traces of one run$/,
  ],
  ["blanks", [" \n \n"], /^rank0\.json: it is empty$/],
  ["prose", ["to be, or not to be"], /^rank0\.json: neither a trace nor a table of times/],
  ["a number", ["[1, 2"], /^rank0\.json: element 0 must be \[stage, kind, microseconds\]/],
  ["half a trace", [texts[0].slice(0, 1500)], /^rank0\.json: it ends in the middle of its events: it is cut off$/],
  ["half a header", [texts[0].slice(0, 60)], /^rank0\.json: it ends too early: it is cut off$/],
  [
    "a damaged event",
    [texts[0].replace('"dur":', '"dur":,')],
    /^rank0\.json: no JSON after byte \d+: an event is damaged$/,
  ],
  ["something behind the trace", [`${texts[0]} []`], /^rank0\.json: no JSON, outside of its events$/],
  ["no event", ['{"traceEvents": []}'], /^rank0\.json: its list of events is empty/],
  ["no list of events", ['{"a": 1}'], /^rank0\.json: it has neither traceEvents nor stages/],
  [
    "another program's trace",
    [event("step")],
    /none of its 1 events is an action of a pipeline .*Schedule1F1B.* table of times/,
  ],
  ["a class of one stage", [event("Forward 0")], /^rank0\.json: it is of a schedule class of one stage a rank/],
  ["transfers alone", [event("PP:0SEND_F0")], /^rank0\.json: it has transfers of a pipeline and no F, I, W or B$/],
  ["an annotation that is none", [event("PP:what")], /^rank0\.json: an annotation "PP:what", which is no action/],
  [
    "a time that is text",
    [event("PP:0F0", { ts: "1" })],
    /"PP:0F0" has a ts of "1", and not a number of microseconds$/,
  ],
  [
    "a time below 0",
    [event("PP:0F0", { dur: -1 })],
    /"PP:0F0" has a dur of -1, and not a number of microseconds, 0 or more$/,
  ],
  [
    "two traces of a rank",
    [texts[0], texts[0]],
    /^rank0\.json and rank1\.json are both of rank 0; give one trace of each$/,
  ],
  [
    "two traces of a stage",
    [texts[0], texts[1], texts[2], changed(0, (trace) => trace.distributedInfo = { rank: 7 })],
    /^Stage 0 runs in rank0\.json and in rank3\.json; give the traces of one pipeline/,
  ],
  [
    "a rank missing in the middle",
    [texts[0], texts[2]],
    /^No trace has actions of stage 1; give the traces of all ranks/,
  ],
  ["the first rank missing", [texts[1], texts[2]], /^No trace has actions of stage 0; give the traces of all ranks/],
  [
    "the last rank missing",
    [texts[0], changed(1, ({ traceEvents }) => traceEvents.push({ ...traceEvents[1], name: "PP:1SEND_F0" }))],
    /^No trace has actions of stage 2; give the traces of all ranks/,
  ],
  [
    "the last rank missing, without transfers in the trace",
    [texts[0], texts[1]],
    /^rank0\.json says that 3 ranks ran, and these are 2 traces/,
  ],
  [
    "several processes in a file",
    [changed(0, ({ traceEvents }) => traceEvents[1].pid = 5)],
    /^rank0\.json has the actions of 2 processes; give a file a rank$/,
  ],
  [
    "other steps on each rank",
    [
      texts[0],
      texts[1],
      changed(
        2,
        ({ traceEvents }) =>
          traceEvents.forEach((each) => each.name = (each.name as string).replace("Step#", "Step#9")),
      ),
    ],
    /^No step is whole on every rank; give traces of the same steps$/,
  ],
  [
    "an action that no step has",
    texts.map((_, rank) =>
      changed(
        rank,
        (trace) =>
          trace.traceEvents = trace.traceEvents.filter(({ name }) =>
            !/^PP:2?B1$/.test(name as string) && name !== "PP:2B1"
          ),
      )
    ),
    /^The traces do not make a whole schedule: /,
  ],
  [
    "this project's trace beside PyTorch's",
    [texts[0], chromeTrace(schedule, simulate(schedule))],
    /^"rank0\.json" and "rank1\.json" were not written by the same program$/,
  ],
  ["a table beside a trace", [texts[0], "stage,kind,ms\n0,F,1"], /^rank1\.json is a table of times, .* give it alone$/],
  ["a table without times", ["stage,kind,ms\n"], /^rank0\.json: a table of times without times$/],
  ["a table with a hole", ["stage,kind,ms\n0,F"], /^rank0\.json: line 2 has 2 cells, and line 1 3 names$/],
  ["a table with another kind", ["stage,kind,ms\n0,X,1"], /^rank0\.json: line 2: kind must be F, I, W or B, not "X"$/],
  ["a table without a unit", ["stage,kind\n0,F"], /^rank0\.json: line 2 must have either ms or us$/],
  [
    "a table with a word",
    ["stage,kind,ms\n0,F,fast"],
    /^rank0\.json: line 2: ms must be a time, 0 or more, not "fast"$/,
  ],
  ["a table without stage 0", ["stage,kind,ms\n1,F,1"], /there are times of stage 1, and none of stage 0$/],
  [
    "a cluster file of another version",
    ['{"schema": 2, "ranks": 1, "stages": [{}]}'],
    /has schema: 1, and this one 2$/,
  ],
];

for (const [what, given, message] of refused) {
  test(`${what} is refused in a line`, async () => {
    await assert.rejects(() => fromTrace(sourcesOf(given)), (error: Error) => {
      assert.ok(error instanceof UserError, error.stack);
      assert.match(error.message, message);
      assert.ok(!error.message.includes("\n") && error.message.length < 400, error.message);
      return true;
    });
  });
}

test("files that are not there, folders, archives that are damaged, cut off or of another kind are refused in a line", async () => {
  const packed = readFileSync(real(0));
  const broken = Uint8Array.from(packed);
  broken.fill(0, 9000, 9400);
  const files: [string, RegExp][] = [
    [join(folder, "none.json"), /^There is no file .*none\.json$/],
    [folder, /is a folder; give the traces in it, one for each rank$/],
    [file("empty.json", ""), /empty\.json: it is empty$/],
    [file("empty.gz", gzipSync("")), /empty\.gz: it is empty$/],
    [file("cut.json.gz", packed.subarray(0, packed.length >> 1)), /cut\.json\.gz is damaged or cut off/],
    [file("head.json.gz", packed.subarray(0, 5)), /head\.json\.gz is damaged or cut off/],
    [file("broken.json.gz", broken), /broken\.json\.gz is damaged or cut off|broken\.json\.gz: no JSON/],
    [file("a.zip", new Uint8Array([0x50, 0x4b, 3, 4, 5])), /a\.zip is packed in a way that is not read here/],
    [file("a.bin", new Uint8Array([0xff, 0xfe, 0xfd, 0])), /a\.bin: neither JSON nor text/],
  ];
  for (const [path, message] of files) {
    await assert.rejects(() => fromTrace([path, real(1)]), (error: Error) => {
      assert.ok(error instanceof UserError, error.stack);
      assert.match(error.message, message);
      return true;
    });
  }
  await assert.rejects(() => fromTrace([real(0), real(0)]), /is given twice; give the trace of each rank once$/);
  await assert.rejects(() => fromTrace([]), UserError);
  // @ts-expect-error: not a source
  const notSource = () => fromTrace([7]);
  await assert.rejects(
    notSource,
    /^UserError: Source 0 of fromTrace is neither a path nor \{ name, text \}$/,
  );
  // @ts-expect-error: a mistyped option
  await assert.rejects(() => fromTrace([real(0), real(1)], { warmups: 1 }), /there is no "warmups"/);
});

test("whatever is changed in a trace, it is read or refused in a line, and never anything else", async () => {
  const real2 = [0, 1].map((rank) =>
    gunzipSync(readFileSync(real(rank))).toString().replace(/\{"ph": "X", "cat": "cpu_op"[^}]*\}\}, /g, "")
  );
  const kinds: string[][] = [
    real2,
    torchTraces(generate("zb-v", { devices: 2 }), unitCosts(), { inside: "kernels", steps: 2 }),
    [chromeTrace(schedule, simulate(schedule))],
    ["stage,kind,ms,rank,width\n0,F,1,0,1\n0,B,2.5,0,1\n1,F,1e0,1,1\n1,I,0.5,1,1\n1,W,3,1,2\n"],
    [JSON.stringify({ schema: 1, ranks: 1, stages: [{ f: 1, w: { 2: 3 } }], messages: [], hosts: [null], tails: [2] })],
  ];
  const edits = fc.array(
    fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), length: fc.nat(40), put: fc.string({ maxLength: 6 }) }),
    { minLength: 1, maxLength: 4 },
  );
  await fc.assert(
    fc.asyncProperty(edits, fc.constantFrom(...kinds), fc.nat(1), async (edits, kind, which) => {
      const texts = [...kind], rank = which % texts.length;
      for (const { at, length, put } of edits) {
        const from = Math.floor(at * texts[rank].length);
        texts[rank] = texts[rank].slice(0, from) + put + texts[rank].slice(from + length);
      }
      try {
        const { steps, stages } = await fromTrace(sourcesOf(texts));
        assert.ok(stages.length > 0);
        for (const { ranks } of steps) {
          for (const { began, end } of ranks.flat()) assert.ok(end >= began && Number.isFinite(end - began));
        }
      } catch (error) {
        assert.ok(error instanceof UserError, (error as Error).stack);
      }
    }),
    { numRuns: 500 },
  );
});
