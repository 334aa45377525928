import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import type { Action, Schedule } from "../../lib/schedules/schedule.ts";
import { fromCsv, toCsv } from "../../lib/schedules/csv/csv.ts";
import { formatTable, parseTable } from "../../lib/schedules/csv/table.ts";
import { withTransfers } from "../../lib/schedules/csv/transfers.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { lower } from "../../lib/schedules/program.ts";
import { twoStage, type TwoStageOptions } from "../../lib/schedules/transforms/two_stage.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { isSplit, names, random } from "./support.ts";

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
  assert.equal(fixtures.length, 10);
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
      assert.deepEqual(sizesOf(back), sizesOf(schedule));
    }
  }
});

test("written transfers do not deadlock even where a send blocks until it is received", () => {
  for (const schedule of several()) {
    const left = withTransfers(lower(schedule)).map(({ cells }) => cells.map(({ actions }) => actions[0]));
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

test("with transfers each stage's gradients are reduced once, after the last of them: PyTorch takes their mean there", () => {
  for (const schedule of several()) {
    for (const [rank, { cells }] of withTransfers(lower(schedule)).entries()) {
      const names = cells.flatMap(({ actions }) => actions.map(({ stage, name }) => ({ stage, name })));
      const placesOf = (stage: number, wanted: readonly string[]) =>
        names.flatMap((each, at) => each.stage === stage && wanted.includes(each.name) ? [at] : []);
      for (const [stage, at] of schedule.placement.entries()) {
        const reduced = placesOf(stage, ["REDUCE_GRAD"]), waited = placesOf(stage, ["WAIT_REDUCE_GRAD"]);
        assert.deepEqual([reduced.length, waited.length], at === rank ? [1, 1] : [0, 0], `${schedule.name}, ${stage}`);
        if (at === rank) assert.ok(Math.max(...placesOf(stage, ["W", "B"])) < reduced[0] && reduced[0] < waited[0]);
      }
    }
  }
});

test("with transfers a stage's parameters are there from before its first action until after its reduction, as PyTorch asks", () => {
  for (const schedule of several()) {
    for (const [rank, { cells }] of withTransfers(lower(schedule)).entries()) {
      const names = cells.flatMap(({ actions }) => actions);
      /** PyTorch's own check: one reduction at a time. */
      let pending = -1;
      const there = new Set<number>(), ended = new Set<number>();
      for (const { stage, name } of names) {
        assert.equal(schedule.placement[stage], rank);
        if (name === "UNSHARD") assert.ok(!there.has(stage) && !ended.has(stage)), there.add(stage);
        else if (["F", "I", "W", "B"].includes(name)) assert.ok(there.has(stage), `${schedule.name}: ${stage}${name}`);
        else if (name === "REDUCE_GRAD") assert.equal(pending, -1), pending = stage;
        else if (name === "WAIT_REDUCE_GRAD") assert.equal(pending, stage), pending = -1;
        else if (name === "RESHARD") assert.ok(there.delete(stage) && pending < 0), ended.add(stage);
      }
      assert.deepEqual([...ended].sort(), [...new Set(names.map(({ stage }) => stage))].sort());
    }
  }
});

test("PyTorch's own files with transfers have the same cells as ours of the same order, each as often", () => {
  for (const name of fixtures.filter((name) => name.includes("comms") && !name.startsWith("DualPipeV"))) {
    const cells = (text: string) => text.split(/[\n,]/).filter(Boolean).sort();
    assert.deepEqual(cells(toCsv(fromCsv(fixture(name)), { transfers: true })), cells(fixture(name)), name);
  }
});

test("for PyTorch a W of several micro-batches is written as so many W, and nothing else changes", () => {
  const wide = twoStage(generate("1f1b-2", { devices: 3 }), { policy: "end", width: 2 });
  const single: Schedule = {
    ...wide,
    actions: wide.actions.map((list) =>
      list.flatMap(({ kind, stage, microbatches }) =>
        microbatches.map((each) => ({ kind, stage, microbatches: [each] }))
      )
    ),
  };
  assert.ok(single.actions[0].length > wide.actions[0].length);
  for (const transfers of [false, true]) {
    const text = toCsv(wide, { for: "torch", transfers });
    assert.ok(!text.includes("CONCAT_W") && toCsv(wide, { transfers }).includes("CONCAT_W"));
    assert.deepEqual(fromCsv(text).actions, single.actions);
    const narrow = generate("zb-v", { devices: 3 });
    assert.equal(toCsv(narrow, { for: "torch", transfers }), toCsv(narrow, { transfers }));
  }
  assert.throws(
    () => toCsv(wide, { for: "jax" as "torch" }),
    /^UserError: for is "jax"; it must be one of twobp, torch$|^UserError: .*torch/,
  );
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
    /^CSV row 1, column 2: unknown action "Z" in "0Z0"; the actions are F, I, W, B, R, BW, SEND_F/,
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
    /^Rank 0, action 1 \(0W0\): it needs the input gradient 0I0 first, and it comes later, as action 2$/,
  ],
  ["a missing backward", "0F0,0F1,0B0\n", /^Rank 0 never runs the backward of micro-batch 1 on stage 0$/],
  ["both spellings", "0F0,0BW0,0F1,0I1,0W1\n", /^The CSV file mixes today's letters/],
  ["an unknown group", "(0F0;0B0)PAIR\n", /^CSV row 1, column 1: unknown group "PAIR"/],
  ["a strange overlap", "0F0,0B0,(0F1;0F2)OVERLAP_F_B\n", /must overlap one F and one backward/],
  ["a deadlock", "0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n", /^Deadlock: rank 0 waits/],
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
  [
    "a blank row between two others",
    "0F0,0B0\n\n1F0,1B0\n",
    /^CSV row 2 has no action and row 3 has; a row is a rank's, so leave no blank ones between them$/,
  ],
  ["a row of idle cells before the first", ",,\n0F0,0B0\n", /^CSV row 1 has no action and row 2 has/],
  ["several blank rows between", "0F0,0B0\n\n , \n\n1F0,1B0", /^CSV row 2 has no action and row 5 has/],
  ["a return doubled before its newline", "0F0,0B0\r\r\n1F0,1B0", /^CSV row 2 has no action and row 3 has/],
  [
    "W of two stages in one cell",
    "0F0,1F0,1I0,0I0,(0W0;1W0)CONCAT_W\n",
    /^CSV row 1, column 5: "\(0W0;1W0\)CONCAT_W" concatenates W of stages 0 and 1; they must be of one stage$/,
  ],
  [
    "two kinds in one W",
    "0F0,0F1,0I0,(0W0;0I1)CONCAT_W,0W1\n",
    /^CSV row 1, column 4: "\(0W0;0I1\)CONCAT_W" must concatenate two or more W$/,
  ],
  [
    "one micro-batch twice in one W",
    "0F0,0I0,(0W0;0W0)CONCAT_W\n",
    /^CSV row 1, column 3: 0W0 is already in row 1, column 3$/,
  ],
  ["a W of one micro-batch as a group", "0F0,0I0,(0W0)CONCAT_W\n", /must concatenate two or more W$/],
  ["three parts of an overlap", "0F0,0F1,(0F2;0I0;0W0)OVERLAP_F_B\n", /must overlap one F and one backward$/],
  ["a transfer in an overlap", "0F0,(0F1;0SEND_F0)OVERLAP_F_B\n", /must overlap one F and one backward$/],
  [
    "an overlap of stages of two rows",
    "0F0,(1F0;0B0)OVERLAP_F_B\n1B0\n",
    /^CSV row 2, column 1: stage 1 already runs in row 1/,
  ],
  ["an open group", "(0F0;0B0\n", /^CSV row 1, column 1: "\(0F0;0B0" opens a group and does not close it$/],
  ["an empty part", "(0F0;)OVERLAP_F_B\n", /^CSV row 1, column 1: "" is not an action/],
  ["a group in a group", "((0F0;0B0)OVERLAP_F_B;0W0)CONCAT_W\n", /^CSV row 1, column 1: unknown group/],
  [
    "a stage of a thousand million",
    "1000000000F0,0B0\n",
    /^CSV row 1, column 1: .* is not an action; its numbers may have at most 7 digits$/,
  ],
  [
    "a micro-batch of 2 to the 32",
    "0F4294967296,0B0\n",
    /^CSV row 1, column 1: "0F4294967296" is not an action; its numbers/,
  ],
  [
    "many micro-batches in two cells",
    "0F9999999,0B9999999\n",
    /^The schedule has 2 actions, too few for 1 stages x 10000000/,
  ],
  [
    "a stage far beyond the others",
    "0F0,0B0\n9999999F0,9999999B0\n",
    /^The CSV file has actions of stage 9999999, but none of stage 1$/,
  ],
  ["a negative micro-batch", "0F-1\n", /^CSV row 1, column 1: "0F-1" is not an action; write/],
  ["a negative stage", "-1F0\n", /^CSV row 1, column 1: "-1F0" is not an action; write/],
  ["a plus sign", "+0F0\n", /"\+0F0" is not an action; write/],
  ["a fraction", "0F0.5\n", /"0F0.5" is not an action; write/],
  ["an exponent", "0F1e3\n", /"0F1e3" is not an action; write/],
  ["digits of another script", "\u0660F\u0661\n", /is not an action; write/],
  ["a quote left open", '"0F0,0B0\n', /^CSV row 1, column 1: "\\"0F0" is not an action/],
  ["a wait for no send", "0F0,0B0,0WAIT_SEND_F0\n", /^0WAIT_SEND_F0 waits for 0SEND_F0, which is missing$/],
  [
    "a wait before its send",
    "0F0,0WAIT_SEND_F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
    /^0WAIT_SEND_F0 waits for 0SEND_F0, which comes only later$/,
  ],
  [
    "two ranks that both send first",
    "0F0,0SEND_F0,2RECV_F0,0F1,2F0,2SEND_F0,0SEND_F1,2RECV_B0,2B0,2SEND_B0,2RECV_F1,2F1,2SEND_F1,2RECV_B1,2B1,2SEND_B1," +
    "0RECV_B0,0B0,0RECV_B1,0B1\n" +
    "1RECV_F0,1F0,1SEND_F0,3RECV_F0,3F0,3B0,3SEND_B0,1RECV_F1,1F1,1SEND_F1,3RECV_F1,3F1,3B1,3SEND_B1,1RECV_B0,1B0," +
    "1SEND_B0,1RECV_B1,1B1,1SEND_B1\n",
    /^Deadlock between transfers, .*: rank 0 waits at 0SEND_F1 \(row 1, column 7\) for 1RECV_F1, which rank 1 runs only after 3SEND_B0; rank 1 waits at 3SEND_B0 \(row 2, column 7\) for 2RECV_B0, which rank 0 runs only after 0SEND_F1$/,
  ],
  [
    "two ranks that both receive first",
    "0F0,0F1,0SEND_F0,0RECV_B0,0SEND_F1,0B0,0RECV_B1,0B1\n1RECV_F0,1F0,1RECV_F1,1F1,1B0,1SEND_B0,1B1,1SEND_B1\n",
    /^Deadlock between transfers, .*: rank 0 waits at 0RECV_B0 \(row 1, column 4\) for 1SEND_B0, which rank 1 runs only after 1RECV_F1; rank 1 waits at 1RECV_F1 \(row 2, column 3\) for 0SEND_F1, which rank 0 runs only after 0RECV_B0$/,
  ],
  [
    "micro-batches that would be swapped",
    "0F0,0F1,0SEND_F1,0SEND_F0,0RECV_B0,0B0,0RECV_B1,0B1\n1RECV_F0,1F0,1RECV_F1,1F1,1B0,1SEND_B0,1B1,1SEND_B1\n",
    /^Rank 1 would take one message for another: it receives 1RECV_F0 \(row 2, column 1\) when rank 0 sends 0SEND_F1 \(row 1, column 3\); what one rank sends to another arrives in the order it is sent$/,
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
    /^UserError: The CSV file has 1 rows for 4 ranks; it needs one for each$/,
  );
});

test("rows without an action at the end are no ranks", () => {
  const plain = fromCsv("0F0,0F1,,0B0,0B1\n,1F0,1B0,1F1,1B1\n");
  assert.ok(Math.abs(simulate(plain).bubbleRatio - 1 / 3) < 1e-12);
  for (const tail of ["\n", "\n\n", ",,,,\n", "  \n,\n\t", '"",""\n', "\r\r\r", "\n".repeat(1000)]) {
    assert.deepEqual(fromCsv(`0F0,0F1,,0B0,0B1\n,1F0,1B0,1F1,1B1\n${tail}`, { devices: 2 }), plain);
  }
});

test("a line ends in any way, and the last one need not", () => {
  const plain = fromCsv("0F0,0F1,0B0,0B1\n,1F0,1B0,1F1,1B1\n");
  for (const end of ["\n", "\r\n", "\r"]) {
    for (const last of [end, "", "\n", "\r"]) {
      assert.deepEqual(fromCsv(`0F0,0F1,0B0,0B1${end},1F0,1B0,1F1,1B1${last}`), plain, JSON.stringify(end + last));
    }
  }
  const mixed = "0F0,0B0\r1F0,1B0\n2F0,2B0\r\n3F0,3B0";
  assert.equal(fromCsv(mixed).actions.length, 4);
});

test("a row with nothing but cells on parameters is a rank, of a stage that never runs", () => {
  assert.throws(() => fromCsv("0F0,0B0\n1UNSHARD,1RESHARD\n"), /^UserError: /);
});

test("a schedule with a rank that does nothing has no CSV", () => {
  const { actions, ...rest } = generate("naive", { devices: 2 });
  for (const transfers of [false, true]) {
    assert.throws(
      () => toCsv({ ...rest, actions: [...actions, []] }, { transfers }),
      /^UserError: Rank 2 runs no action; a CSV file has a row for each rank, and none blank$/,
    );
  }
});

test("what the whole zoo writes with its transfers passes the check, with and without 2BP", () => {
  const splits: TwoStageOptions[] = [{}, { policy: "lean" }, { policy: "end", width: 2 }, {
    policy: "every:3",
    width: 3,
  }];
  let count = 0;
  for (const name of names) {
    for (const devices of [1, 2, 3, 5]) {
      for (const microbatches of [undefined, 4 * devices]) {
        const base = generate(name, { devices, microbatches });
        for (const schedule of [base, ...isSplit(base) ? [] : splits.map((options) => twoStage(base, options))]) {
          assert.deepEqual(fromCsv(toCsv(schedule, { transfers: true })).actions, schedule.actions, schedule.name);
          count++;
        }
      }
    }
  }
  assert.ok(count > 8 * names.length);
});

/** What becomes of a file's transfers. */
type Fate = "runs" | "hangs" | "swaps";

/**
 * PyTorch's runtime as it is, without the argument that it may be taken to block: each cell is posted and the rank goes on,
 * an action waits only for its own RECV; what is posted runs on the device one after the other, once the actions before it
 * are done and the other side has come.
 */
function asPosted(rows: readonly string[][], rankOf: (stage: number) => number): Fate {
  const parse = (cell: string) => {
    const [, stage, name, microbatch] = /^(\d+)([A-Z_]+)(\d+)$/.exec(cell)!;
    return { cell, stage: Number(stage), name, microbatch };
  };
  const lists = rows.map((row) => row.filter(Boolean).map(parse));
  const other = ({ stage, name }: { stage: number; name: string }) =>
    stage + ((name === "SEND_F" || name === "RECV_B") ? 1 : -1);
  const next = lists.map(() => 0);
  const queues = lists.map(() => [] as ReturnType<typeof parse>[]);
  const arrived = new Set<string>();
  for (let moved = true; moved;) {
    moved = false;
    lists.forEach((list, rank) => {
      while (next[rank] < list.length) {
        const action = list[next[rank]];
        const { stage, name, microbatch } = action;
        const received = `${stage}RECV_${name === "F" ? "F" : "B"}${microbatch}`;
        const needs = "FIB".includes(name) && list.some(({ cell }) => cell === received);
        if (needs && !arrived.has(received)) break;
        if (/^(SEND|RECV)/.test(name)) queues[rank].push(action);
        next[rank]++;
        moved = true;
      }
    });
    for (const [rank, queue] of queues.entries()) {
      const send = queue[0];
      if (!send?.name.startsWith("SEND")) continue;
      const peer = rankOf(other(send));
      const receive = queues[peer][0];
      if (!receive?.name.startsWith("RECV") || rankOf(other(receive)) !== rank) continue;
      if (receive.cell !== `${other(send)}${send.name.replace("SEND", "RECV")}${send.microbatch}`) return "swaps";
      queue.shift();
      queues[peer].shift();
      arrived.add(receive.cell);
      moved = true;
    }
  }
  return lists.every((list, rank) => next[rank] === list.length && queues[rank].length === 0) ? "runs" : "hangs";
}

function fateOf(text: string): Fate {
  try {
    fromCsv(text);
    return "runs";
  } catch (error) {
    const { message } = error as Error;
    if (/^Rank \d+ would take one message for another/.test(message)) return "swaps";
    assert.match(message, /^Deadlock between transfers/);
    return "hangs";
  }
}

/**
 * A schedule's rows with its transfers, some of them later or earlier by a few cells; none before what makes its message,
 * nor after what uses it.
 */
function shaken(schedule: Schedule, next: () => number, moves: number): string[][] {
  const rows = toCsv(schedule, { transfers: true }).trim().split("\n").map((row) =>
    row.split(",").filter((cell) => /\d$/.test(cell) && !cell.includes("WAIT")) // actions on parameters wait for nobody
  );
  /** The action that makes what is sent, or uses what is received. */
  const actionOf = (cell: string) => {
    const [, stage, letter, microbatch] = /^(\d+)(?:SEND|RECV)_([FB])(\d+)$/.exec(cell)!;
    return new RegExp(`^${stage}(${letter === "F" ? "F" : "I|B"})${microbatch}$`);
  };
  for (let move = 0; move < moves; move++) {
    const row = rows[Math.floor(next() * rows.length)];
    const at = Math.floor(next() * row.length);
    const cell = row[at];
    if (!/SEND|RECV/.test(cell)) continue;
    const step = cell.includes("SEND") === next() < 0.7 ? 1 : -1;
    for (let k = at, far = 1 + Math.floor(next() * 5); far > 0 && row[k + step] !== undefined; far--, k += step) {
      if (actionOf(cell).test(row[k + step])) break;
      [row[k], row[k + step]] = [row[k + step], row[k]];
    }
  }
  return rows;
}

test("files that PyTorch's runtime would hang on or mix up are those that are refused", () => {
  const next = random(29);
  const bases = ["naive", "1f1b-1", "interleaved-1f1b", "zb-v", "dualpipe-v", "zb-h1"].flatMap((name) =>
    [2, 3].map((devices) => generate(name, { devices, microbatches: 2 * devices }))
  );
  const counts = { runs: 0, hangs: 0, swaps: 0 };
  for (let draw = 0; draw < 1000; draw++) {
    const schedule = bases[draw % bases.length];
    const rows = shaken(schedule, next, 1 + Math.floor(next() * 4));
    const fate = asPosted(rows, (stage) => schedule.placement[stage]);
    const found = fateOf(rows.map((row) => `${row.join(",")}\n`).join(""));
    // One that hangs may also mix up; which is found first is of no interest.
    assert.equal(found === "runs", fate === "runs", rows.join("\n"));
    counts[found]++;
  }
  assert.ok(counts.runs > 100 && counts.hangs > 50 && counts.swaps > 50, JSON.stringify(counts));
});

test("PyTorch's own files run as posted", () => {
  for (const name of fixtures.filter((name) => name.includes("comms"))) {
    const { placement } = fromCsv(fixture(name));
    const rows = fixture(name).trim().split("\n").map((row) =>
      row.split(",").flatMap((cell) => cell.replace(/^\((.*)\).*$/, "$1").split(";")).filter((cell) => /\d$/.test(cell))
    );
    assert.equal(asPosted(rows, (stage) => placement[stage]), "runs");
  }
});

/** Calls `fromCsv`, which must give a schedule that comes back from its CSV, or a UserError of one short line. */
function readOrExplain(text: string): boolean {
  let schedule: Schedule;
  try {
    schedule = fromCsv(text);
  } catch (error) {
    const { name, message, stack } = error as Error;
    assert.equal(name, "UserError", `${stack}\n${text}`);
    assert.ok(message.length < 5000);
    assert.doesNotMatch(message, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    return false;
  }
  validate(schedule);
  for (const transfers of [false, true]) {
    assert.deepEqual({ ...fromCsv(toCsv(schedule, { transfers })), name: schedule.name }, schedule);
  }
  return true;
}

const texts = several().flatMap((schedule) => [toCsv(schedule), toCsv(schedule, { transfers: true })]);

test("fromCsv() either reads or explains any damaged file, and never crashes", () => {
  const pieces = fc.oneof(
    fc.constantFrom(
      ...'0123456789FIWB,;()_\n\r" ',
      "SEND_F",
      "RECV_B",
      "CONCAT_W",
      "\u0000",
      "\u202e",
      "\ud800",
      "\r\n",
      "\ufeff",
    ),
    fc.string({ unit: "binary", maxLength: 3 }),
  );
  const edit = fc.record({
    at: fc.double({ min: 0, max: 0.999, noNaN: true }),
    piece: pieces,
    gone: fc.nat({ max: 4 }),
  });
  fc.assert(
    fc.property(fc.constantFrom(...texts), fc.array(edit, { minLength: 1, maxLength: 3 }), (text, edits) => {
      for (const { at, piece, gone } of edits) {
        const k = Math.floor(at * text.length);
        text = text.slice(0, k) + piece + text.slice(k + gone);
      }
      readOrExplain(text);
    }),
    { seed: 17, numRuns: 1500 },
  );
});

test("fromCsv() either reads or explains a file with cells swapped, rows swapped, or its end cut off", () => {
  const share = fc.double({ min: 0, max: 0.999, noNaN: true });
  const counts = { read: 0, explained: 0 };
  fc.assert(
    fc.property(fc.constantFrom(...texts), fc.constantFrom("cells", "rows", "cut"), share, share, (text, how, a, b) => {
      const parts = how === "cells" ? text.split(/([,\n])/) : text.split(/(\n)/);
      const [i, j] = [a, b].map((each) => 2 * Math.floor(each * parts.length / 2));
      [parts[i], parts[j]] = [parts[j], parts[i]];
      const damaged = how === "cut" ? text.slice(0, a * text.length) : parts.join("");
      counts[readOrExplain(damaged) ? "read" : "explained"]++;
    }),
    { seed: 18, numRuns: 600 },
  );
  assert.ok(counts.read > 20 && counts.explained > 200, JSON.stringify(counts));
});

test("fromCsv() explains texts that were never a schedule", () => {
  const text = fc.oneof(
    fc.string({ unit: "binary", maxLength: 200 }),
    fc.array(fc.stringMatching(/^[0-9]{1,3}[FIWB][0-9]{1,3}$/), { maxLength: 20 }).map((cells) => cells.join(",")),
    fc.array(fc.constantFrom("0F0", "0B0", "1F0", "1B0", ",", "\n", '"', "(0F0;0B0)OVERLAP_F_B"), { maxLength: 20 })
      .map((parts) => parts.join("")),
  );
  fc.assert(fc.property(text, (text) => void readOrExplain(text)), { seed: 19, numRuns: 1000 });
});

/** Random schedules that can run: at every step a random rank runs a random action that is ready. */
const validSchedules = fc.record({
  devices: fc.integer({ min: 1, max: 4 }),
  perRank: fc.integer({ min: 1, max: 2 }),
  microbatches: fc.integer({ min: 1, max: 5 }),
  split: fc.constantFrom("never", "always", "sometimes"),
  seed: fc.nat(),
}).map(({ devices, perRank, microbatches, split, seed }): Schedule => {
  const next = random(seed);
  const stages = devices * perRank;
  const snake = next() < 0.5;
  const placement = Array.from(
    { length: stages },
    (_, stage) => snake && Math.floor(stage / devices) % 2 ? devices - 1 - stage % devices : stage % devices,
  );
  const actions: Action[][] = placement.slice(0, devices).map(() => []);
  const done = new Set<string>();
  type Kind = Action["kind"];
  const waiting: [Kind, number, number][] = [];
  for (let stage = 0; stage < stages; stage++) {
    for (let microbatch = 0; microbatch < microbatches; microbatch++) {
      const whole = split === "never" || split === "sometimes" && next() < 0.5;
      for (const kind of (whole ? ["F", "B"] : ["F", "I", "W"]) as Kind[]) waiting.push([kind, stage, microbatch]);
    }
  }
  const has = (kind: string, stage: number, microbatch: number) => done.has(`${kind} ${stage} ${microbatch}`);
  const ready = ([kind, stage, microbatch]: [Kind, number, number]) =>
    kind === "F"
      ? stage === 0 || has("F", stage - 1, microbatch)
      : kind === "W"
      ? has("G", stage, microbatch)
      : has("F", stage, microbatch) && (stage === stages - 1 || has("G", stage + 1, microbatch));
  while (waiting.length > 0) {
    const candidates = waiting.filter(ready);
    const chosen = candidates[Math.floor(next() * candidates.length)];
    waiting.splice(waiting.indexOf(chosen), 1);
    const [kind, stage, microbatch] = chosen;
    done.add(`${kind === "F" ? "F" : kind === "W" ? "W" : "G"} ${stage} ${microbatch}`);
    actions[placement[stage]].push({ kind, stage, microbatches: [microbatch] });
  }
  return { name: "csv", placement, actions };
});

test("any schedule that can run comes back from its CSV, with and without transfers", () => {
  fc.assert(
    fc.property(validSchedules, (schedule) => {
      for (const transfers of [false, true]) {
        assert.deepEqual(fromCsv(toCsv(schedule, { transfers })), schedule);
      }
    }),
    { seed: 21, numRuns: 300 },
  );
});

test("megabytes of noise and of commas are one error, at once", () => {
  const next = random(23);
  const noise = Array.from({ length: 1 << 20 }, () => String.fromCharCode(Math.floor(next() * 256))).join("");
  for (
    const text of [
      noise,
      ",".repeat(1 << 24),
      "0F0,".repeat(1 << 20),
      "\n".repeat(1 << 20),
      "\n".repeat(1 << 20) + "0F0,0B0",
      "\r".repeat(1 << 20) + "0F0,0B0",
      `(${";".repeat(1 << 20)})CONCAT_W`,
      `${" ".repeat(1 << 20)}x`,
      "1".repeat(1 << 20),
      `1${"A".repeat(1 << 20)}!`,
      '"'.repeat(1 << 20),
      "\u202e".repeat(1 << 20),
    ]
  ) {
    const start = performance.now();
    assert.throws(() => fromCsv(text), (error: Error) => error.name === "UserError" && error.message.length < 2000);
    assert.ok(performance.now() - start < 3000);
  }
});

test("a million rows are refused, many cells in one row are read", () => {
  const rows = Array.from({ length: 1_000_000 }, (_, stage) => `${stage}F0,${stage}B0\n`).join("");
  assert.throws(
    () => fromCsv(rows),
    /^UserError: The CSV file has more than 4096 rows; a schedule has one row per rank$/,
  );
  const cells = (kind: string) => Array.from({ length: 100_000 }, (_, k) => `0${kind}${k}`).join(",");
  assert.equal(fromCsv(`${cells("F")},${cells("B")}\n`).actions[0].length, 200_000);
});
