import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import type { Schedule } from "../../lib/schedules/actions.ts";
import { fromCsv, toCsv } from "../../lib/schedules/csv.ts";
import { formatTable, parseTable } from "../../lib/schedules/csv_table.ts";
import { withTransfers } from "../../lib/schedules/csv_transfers.ts";
import { generate } from "../../lib/schedules/generate.ts";
import { simulate } from "../../lib/schedules/simulate.ts";
import { twoStage } from "../../lib/schedules/two_stage.ts";
import { names, random } from "./support.ts";

const folder = new URL("./fixtures/", import.meta.url);
const fixtures = readdirSync(folder).filter((name) => name.endsWith(".csv"));
const fixture = (name: string) => readFileSync(new URL(name, folder), "utf8").replaceAll("\r\n", "\n");

/** Some schedules of every kind, one of them with a W of several micro-batches. */
function several(): Schedule[] {
  const zoo = names.map((name) => generate(name, { devices: 3, microbatches: 6 }));
  const base = generate("1f1b-2", { devices: 3 });
  return [...zoo, twoStage(base), twoStage(base, { policy: "end", width: 2 })];
}

test("reading and writing PyTorch's own files changes nothing", () => {
  assert.equal(fixtures.length, 8);
  for (const name of fixtures) assert.equal(formatTable(parseTable(fixture(name))), fixture(name), name);
});

test("PyTorch's own schedules import, and with their transfers they are the same schedules", () => {
  for (const name of fixtures.filter((name) => name.includes("only"))) {
    const alone = fromCsv(fixture(name), { devices: 4 });
    assert.ok(simulate(alone).makespan > 0);
    assert.deepEqual(fromCsv(fixture(name.replace("only", "comms")), { devices: 4 }).actions, alone.actions);
  }
});

test("the generators agree with PyTorch on interleaved 1F1B and DualPipeV, action by action", () => {
  const interleaved = fromCsv(fixture("Interleaved1F1B.compute_only.csv"));
  assert.deepEqual(interleaved.actions, generate("interleaved-1f1b", { devices: 4, microbatches: 8 }).actions);
  const dualPipeV = fromCsv(fixture("DualPipeV.compute_only.csv"));
  assert.deepEqual(dualPipeV.actions, generate("dualpipe-v", { devices: 4, microbatches: 10 }).actions);
});

test("ZB-V has the makespan and the peaks of PyTorch's", () => {
  const memory = () => ({ activations: 1, derivatives: 0 });
  const theirs = simulate(fromCsv(fixture("ZBVZeroBubble.compute_only.csv")), undefined, memory);
  const ours = simulate(generate("zb-v", { devices: 4, microbatches: 8 }), undefined, memory);
  assert.equal(ours.makespan, theirs.makespan);
  assert.deepEqual(ours.peak, theirs.peak);
});

test("a schedule comes back from its CSV as it was, with and without transfers", () => {
  for (const schedule of several()) {
    for (const transfers of [false, true]) {
      const back = fromCsv(toCsv(schedule, { transfers }));
      assert.deepEqual(back.actions, schedule.actions, schedule.name);
      assert.deepEqual(back.placement, schedule.placement);
      assert.equal(back.twoStage, schedule.twoStage);
      assert.equal(back.microbatches, schedule.microbatches);
    }
  }
});

test("written transfers do not deadlock even where a send blocks until it is received", () => {
  for (const schedule of several()) {
    const left = withTransfers(schedule).map(({ cells }) => cells.map(({ actions }) => actions[0]));
    for (let moved = true; moved;) {
      moved = false;
      left.forEach((list) => {
        const next = list[0];
        if (!next) return;
        if (next.name.startsWith("RECV")) return;
        if (next.name.startsWith("SEND")) {
          const receiver = next.stage + (next.name === "SEND_F" ? 1 : -1);
          const peer = left[schedule.placement[receiver]];
          const met = peer[0]?.stage === receiver && peer[0].name === next.name.replace("SEND", "RECV") &&
            peer[0].microbatch === next.microbatch;
          if (!met) return;
          peer.shift();
        }
        list.shift();
        moved = true;
      });
    }
    assert.ok(left.every((list) => list.length === 0), schedule.name);
  }
});

test("the older letters mean the same", () => {
  for (const name of ["zb-h1", "dualpipe-v", "zb-v"]) {
    const schedule = generate(name, { devices: 3, microbatches: 6 });
    const old = toCsv(schedule, { transfers: true }).replace(/(\d)B(\d)/g, "$1BW$2").replace(/(\d)I(\d)/g, "$1B$2");
    assert.deepEqual(fromCsv(old).actions, schedule.actions);
  }
  assert.equal(fromCsv("0F0,0BW0\n").actions[0][1].kind, "B");
  assert.equal(fromCsv("0F0,0B0\n").actions[0][1].kind, "B");
});

test("idle cells, spaces, quotes, a byte order mark and Windows line ends are read", () => {
  const plain = fromCsv("0F0,0F1,0B0,0B1\n,1F0,1B0,1F1,1B1\n");
  assert.deepEqual(fromCsv('\ufeff0F0, 0F1 ,,"0B0",0B1,,\r\n,,1F0,1B0,1F1,1B1').actions, plain.actions);
});

test("an overlapped pair is its forward and then its backward", () => {
  const { actions } = fromCsv("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n");
  assert.deepEqual(actions[0].map(({ kind, microbatches }) => `${kind}${microbatches}`), ["F0", "F1", "B0", "B1"]);
});

const faults: [fault: string, text: string, message: RegExp][] = [
  ["an empty file", "", /^The CSV file holds no action; a schedule has one row per rank/],
  ["a file of idle cells", ",,,\n,,\n", /^The CSV file holds no action/],
  [
    "an unknown action",
    "0F0,0Z0\n",
    /^CSV row 1, column 2: unknown action "Z" in "0Z0"; the actions are F, I, W, B, BW, SEND_F/,
  ],
  [
    "a cell that is no action",
    "0F0,0B0\n1F0,hello\n",
    /^CSV row 2, column 2: "hello" is not an action; write stage, action and micro-batch, as in 2F0$/,
  ],
  ["a missing micro-batch", "0F0,0B\n", /^CSV row 1, column 2: "0B" names no micro-batch/],
  ["a huge number", "99999999F0,0B0\n", /^CSV row 1, column 1: "99999999F0" is not an action/],
  ["control characters", "0F0,\u0000\u0007\n", /^CSV row 1, column 2: "\\u0000\\u0007" is not an action/],
  ["an action twice", "0F0,0B0,0F0\n", /^CSV row 1, column 3: 0F0 is already in row 1, column 1$/],
  ["an action twice in two rows", "0F0,0B0\n0F0,1F0,1B0\n", /^CSV row 2, column 1: 0F0 is already in row 1, column 1$/],
  [
    "a stage in two rows",
    "0F0,0B0\n0F1,0B1\n",
    /^CSV row 2, column 1: stage 0 already runs in row 1; all actions of a stage belong in one row$/,
  ],
  ["a stage that never runs", "0F0,0B0\n2F0,2B0\n", /^The CSV file has actions of stage 2, but none of stage 1$/],
  [
    "W before I",
    "0F0,0W0,0I0\n",
    /^Device 0, action 1 \(0W0\): it needs the input gradient 0I0 first, and it comes later, as action 2$/,
  ],
  ["a missing backward", "0F0,0F1,0B0\n", /^Device 0 never runs the backward of micro-batch 1 on stage 0$/],
  ["both spellings", "0F0,0BW0,0F1,0I1,0W1\n", /^The CSV file mixes today's letters/],
  ["an unknown group", "(0F0;0B0)PAIR\n", /^CSV row 1, column 1: unknown group "PAIR"/],
  ["a strange overlap", "0F0,0B0,(0F1;0F2)OVERLAP_F_B\n", /must overlap one F and one backward/],
  ["a deadlock", "0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n", /^Deadlock: device 0 waits/],
  [
    "a missing send",
    "0F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
    /^Rank 1 waits for the activation of micro-batch 0 from stage 0, which rank 0 never sends: 0SEND_F0 is missing$/,
  ],
  [
    "a missing receive",
    "0F0,0SEND_F0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
    /^Rank 0 never receives the gradient of micro-batch 0 from stage 1: 0RECV_B0 is missing$/,
  ],
  [
    "a send before its action",
    "0SEND_F0,0F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
    /^Rank 0 sends the activation of micro-batch 0 from stage 0 before it is made: 0SEND_F0 must come after 0F0$/,
  ],
  [
    "a receive after its use",
    "0F0,0SEND_F0,0B0,0RECV_B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
    /^Rank 0 receives the gradient of micro-batch 0 from stage 1 after it is used: 0RECV_B0 must come earlier$/,
  ],
  ["a send to nobody", "0F0,0B0,0SEND_B0\n", /^0SEND_B0 has no partner: there is no stage -1$/],
];

for (const [fault, text, message] of faults) {
  test(`fromCsv() explains ${fault}`, () => {
    assert.throws(() => fromCsv(text), (error: Error) => {
      assert.equal(error.name, "UserError");
      assert.match(error.message, message);
      assert.ok(!error.message.includes("\n"));
      return true;
    });
  });
}

test("fromCsv() explains a wrong number of rows", () => {
  assert.throws(
    () => fromCsv("0F0,0B0\n", { devices: 4 }),
    /^UserError: The CSV file has 1 rows for 4 devices; it needs one for each$/,
  );
});

test("fromCsv() either reads or explains any damaged file, and never crashes", () => {
  const next = random(17);
  const letters = '0123456789FIWB,;()_\n\r" SENDRCV\u0000é';
  const texts = several().map((schedule) => toCsv(schedule, { transfers: next() < 0.5 }));
  for (let draw = 0; draw < 3000; draw++) {
    let text = texts[Math.floor(next() * texts.length)];
    for (let edits = 1 + Math.floor(next() * 3); edits > 0; edits--) {
      const at = Math.floor(next() * text.length);
      const piece = next() < 0.3 ? "" : letters[Math.floor(next() * letters.length)];
      text = text.slice(0, at) + piece + text.slice(at + Math.floor(next() * 4));
    }
    try {
      fromCsv(text);
    } catch (error) {
      assert.equal((error as Error).name, "UserError", `${(error as Error).stack}\n${text}`);
    }
  }
});

test("megabytes of noise and of commas are one error, at once", () => {
  const next = random(23);
  const noise = Array.from({ length: 1 << 20 }, () => String.fromCharCode(Math.floor(next() * 256))).join("");
  for (const text of [noise, ",".repeat(1 << 24), "0F0,".repeat(1 << 20), "\n".repeat(1 << 20)]) {
    const start = performance.now();
    assert.throws(() => fromCsv(text), { name: "UserError" });
    assert.ok(performance.now() - start < 3000);
  }
});
