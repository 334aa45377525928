import assert from "node:assert/strict";
import { test } from "node:test";
import type { Action, Kind, Schedule } from "../../lib/schedules/schedule.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { isSplit, names, random, schedule } from "./support.ts";

/** A valid split schedule on two devices, with one fault put in by hand. */
const faults: [fault: string, broken: Schedule, message: RegExp][] = [
  [
    "a missing gradient",
    schedule(["0F0 0B0 0F1 0B1", "1F0 1B0 1F1"]),
    /^Rank 0 waits for the gradient of micro-batch 1 from stage 1, which no action sends$/,
  ],
  [
    "a missing activation",
    schedule(["0F0 0B0 0B1", "1F0 1B0 1F1 1B1"]),
    /^Rank 1 waits for the activation of micro-batch 1 from stage 0, which no action sends$/,
  ],
  [
    "a missing backward on the first stage",
    schedule(["0F0 0B0 0F1", "1F0 1B0 1F1 1B1"]),
    /^Rank 0 never runs the backward of micro-batch 1 on stage 0$/,
  ],
  [
    "a missing forward on the last stage",
    schedule(["0F0 0B0 0F1 0B1", "1F0 1B0 1B1"]),
    /^Rank 1, action 2 \(1B1\): it needs the forward 1F1 first, and no action runs it$/,
  ],
  [
    "a missing weight gradient",
    schedule(["0F0 0I0 0W0", "1F0 1I0"]),
    /^Rank 1 never runs the weight gradient of micro-batch 0 on stage 1$/,
  ],
  [
    "an action twice",
    schedule(["0F0 0F0 0B0", "1F0 1B0"]),
    /^Rank 0, action 1 \(0F0\): the forward of micro-batch 0 on stage 0 already runs as action 0 \(0F0\)$/,
  ],
  [
    "an I beside a B",
    schedule(["0F0 0B0 0I0", "1F0 1B0"]),
    /^Rank 0, action 2 \(0I0\): the backward of micro-batch 0 on stage 0 already runs as action 1 \(0B0\)$/,
  ],
  [
    "a W after a B",
    schedule(["0F0 0B0 0W0", "1F0 1B0"]),
    /^Rank 0, action 2 \(0W0\): the weight gradient of micro-batch 0 on stage 0 already runs as action 1 \(0B0\)$/,
  ],
  [
    "a W before its I",
    schedule(["0F0 0W0 0I0", "1F0 1I0 1W0"]),
    /^Rank 0, action 1 \(0W0\): it needs the input gradient 0I0 first, and it comes later, as action 2$/,
  ],
  [
    "a backward before its forward",
    schedule(["0B0 0F0", "1F0 1B0"]),
    /^Rank 0, action 0 \(0B0\): it needs the forward 0F0 first, and it comes later, as action 1$/,
  ],
  ["the wrong device", schedule(["0F0 0B0 1F0", "1B0"]), /^Rank 0, action 2 \(1F0\): stage 1 is placed on rank 1$/],
  [
    "a stage that does not exist",
    schedule(["0F0 0B0", "1F0 1B0 2F0"]),
    /^Rank 1, action 2 \(2F0\): there is no stage 2; the stages are 0 to 1$/,
  ],
  [
    "a micro-batch that does not exist",
    schedule(["0F0 0B0", "1F0 1B0 1F-7"]),
    /^Rank 1, action 2 \(1F-7\): there is no micro-batch -7; they are whole numbers from 0$/,
  ],
  [
    "an unknown kind",
    schedule(["0F0 0B0", "1F0 1Z0"]),
    /^Rank 1, action 1 \(1Z0\): unknown kind "Z"; the kinds are F, I, W, B, R$/,
  ],
  [
    "a forward of two micro-batches",
    schedule(["0F0+1 0B0 0B1"]),
    /^Rank 0, action 0 \(0F0\+1\): it carries 2 micro-batches; only a W may carry several$/,
  ],
  [
    "a W with a micro-batch twice",
    schedule(["0F0 0F1 0I0 0I1 0W0+0"]),
    /^Rank 0, action 4 \(0W0\+0\): it carries a micro-batch twice$/,
  ],
  [
    "a placement outside the devices",
    schedule(["0F0 0B0", "1F0 1B0"], [0, 5]),
    /^Stage 1 is placed on rank 5; the ranks are 0 to 1$/,
  ],
  [
    "a placement of fewer stages",
    schedule(["0F0 0B0", "1F0 1B0"], [0]),
    /^Rank 1, action 0 \(1F0\): there is no stage 1; the stages are 0 to 0$/,
  ],
  [
    "no rank",
    schedule([], [0]),
    /^The actions of a schedule are one list for each rank, at least one; these are no such lists$/,
  ],
  [
    "no stage",
    schedule(["0F0 0B0"], []),
    /^The placement of a schedule lists the rank of each stage, of at least one$/,
  ],
  ["no action", schedule([""]), /^Rank 0 never runs the forward of micro-batch 0 on stage 0$/],
  [
    "a micro-batch that the first stage has not",
    schedule(["0F0 0B0 0F1 0B1", "1F0 1B0 1F1 1B1 1F2 1B2"]),
    /^Rank 1 waits for the activation of micro-batch 2 from stage 0, which no action sends$/,
  ],
  [
    "more micro-batches than actions",
    schedule(["0F0 0B999999999999999"]),
    /^The schedule has 2 actions, too few for 1 stages x 1000000000000000 micro-batches/,
  ],
  [
    "a deadlock of two devices",
    schedule(["0F0 0B0 0F1 0B1", "1F0 1F1 1B0 1B1"]),
    /^Deadlock: rank 0 waits at its action 1 \(0B0\) for the gradient of micro-batch 0 from stage 1, which rank 1 makes only after its action 1 \(1F1\); rank 1 waits at its action 1 \(1F1\) for the activation of micro-batch 1 from stage 0, which rank 0 makes only after its action 1 \(0B0\)$/,
  ],
  [
    "a device that waits for itself",
    schedule(["1F0 0F0 1B0 0B0"], [0, 0]),
    /^Deadlock: rank 0 waits at its action 0 \(1F0\) for the activation of micro-batch 0 from stage 0, which rank 0 makes only after its action 0/,
  ],
];

for (const [fault, broken, message] of faults) {
  test(`validate() explains ${fault}`, () => {
    assert.throws(() => validate(broken), (error: Error) => {
      assert.equal(error.name, "UserError");
      assert.match(error.message, message);
      return true;
    });
  });
}

test("what is no schedule is told what would be one", () => {
  const given = [["1f1b-1", '"1f1b-1"'], [undefined, "undefined"], [{ samples: 4 }, "an object"]] as const;
  for (const [value, shown] of given) {
    const refused = {
      name: "UserError",
      message: `A schedule must be what generate() or fromCsv() returns, not ${shown}`,
    };
    for (const take of [validate, simulate, twoStage]) {
      assert.throws(() => take(value as never), refused);
    }
  }
});

test("validate() accepts every schedule of the zoo", () => {
  for (const name of names) {
    for (let devices = 1; devices <= 6; devices++) validate(generate(name, { devices, microbatches: 2 * devices }));
  }
});

test("validate() accepts a W of several micro-batches and a mixture of B with I and W", () => {
  validate(schedule(["0F0 0F1 0I0 0I1 0W0+1"]));
  validate(schedule(["0F0 0F1 0B0 0I1 0W1", "1F0 1B0 1F1 1I1 1W1"]));
});

/** Breaks a schedule in one place; undefined where the draw does not apply. */
type Mutation = (actions: Action[][], rank: number, index: number, next: () => number) => Action[][] | undefined;

const mutations: Record<string, Mutation> = {
  "drops an action": (actions, rank, index) => (actions[rank].splice(index, 1), actions),
  "runs an action twice": (actions, rank, index) => (actions[rank].splice(index, 0, actions[rank][index]), actions),
  "changes a kind": (actions, rank, index, next) => {
    const kind = "FIWB"[Math.floor(next() * 4)] as Kind;
    if (kind === actions[rank][index].kind) return undefined;
    actions[rank][index] = { ...actions[rank][index], kind };
    return actions;
  },
  "moves an action to another device": (actions, rank, index) => {
    actions[(rank + 1) % actions.length].push(...actions[rank].splice(index, 1));
    return actions;
  },
  "swaps an I and its W": (actions, rank, index) => {
    const { kind, stage, microbatches } = actions[rank][index];
    if (kind !== "I") return undefined;
    const w = actions[rank].findIndex((a) =>
      a.kind === "W" && a.stage === stage && a.microbatches.includes(microbatches[0])
    );
    [actions[rank][index], actions[rank][w]] = [actions[rank][w], actions[rank][index]];
    return actions;
  },
  "changes a micro-batch": (actions, rank, index, next) => {
    const microbatch = Math.floor(next() * 6);
    const action = actions[rank][index];
    if (action.microbatches.includes(microbatch)) return undefined;
    actions[rank][index] = { ...action, microbatches: [microbatch, ...action.microbatches.slice(1)] };
    return actions;
  },
  "concatenates a micro-batch of another W": (actions, rank, index) => {
    const action = actions[rank][index];
    if (action.kind !== "W") return undefined;
    actions[rank][index] = { ...action, microbatches: [...action.microbatches, (action.microbatches[0] + 1) % 6] };
    return actions;
  },
};

for (const [what, mutate] of Object.entries(mutations)) {
  test(`validate() rejects any schedule of the zoo when a mutation ${what}`, () => {
    const next = random(11);
    for (const name of names) {
      const base = generate(name, { devices: 3, microbatches: 6 });
      const one = isSplit(base) ? base : twoStage(base, { width: 2 });
      for (let draw = 0; draw < 40; draw++) {
        const rank = Math.floor(next() * 3);
        const actions = one.actions.map((list) => [...list]);
        const broken = mutate(actions, rank, Math.floor(next() * actions[rank].length), next);
        if (broken) {
          assert.throws(() => validate({ ...one, actions: broken }), { name: "UserError" }, `${name}, draw ${draw}`);
        }
      }
    }
  });
}

test("validate() agrees with brute force on which reorderings of two ranks deadlock", () => {
  const next = random(5);
  const counts = { run: 0, stuck: 0 };
  for (let draw = 0; draw < 400; draw++) {
    const shuffled = generate("gpipe", { devices: 2, microbatches: 3 }).actions.map((list) => {
      const order = [...list];
      for (let k = order.length - 1; k > 0; k--) {
        const other = Math.floor(next() * (k + 1));
        [order[k], order[other]] = [order[other], order[k]];
      }
      // Each forward before its own backward, so that only dependencies between ranks can fail.
      for (const action of list.filter((a) => a.kind === "F")) {
        const f = order.indexOf(action);
        const b = order.findIndex((a) => a.kind === "B" && a.microbatches[0] === action.microbatches[0]);
        if (b < f) [order[f], order[b]] = [order[b], order[f]];
      }
      return order;
    });
    const runs = bruteForceRuns(shuffled);
    counts[runs ? "run" : "stuck"]++;
    const one = { ...generate("gpipe", { devices: 2, microbatches: 3 }), actions: shuffled };
    if (runs) validate(one);
    else assert.throws(() => validate(one), /^UserError: Deadlock/);
  }
  assert.ok(counts.run > 20 && counts.stuck > 20, JSON.stringify(counts));
});

/** Runs whatever can run, one action at a time, until nothing moves. */
function bruteForceRuns(actions: readonly (readonly Action[])[]): boolean {
  const done = new Set<string>();
  const left = actions.map((list) => [...list]);
  for (let moved = true; moved;) {
    moved = false;
    for (const list of left) {
      if (list.length === 0) continue;
      const { kind, stage, microbatches: [m] } = list[0];
      const need = kind === "F" ? (stage === 1 ? `F0.${m}` : "") : (stage === 0 ? `B1.${m}` : "");
      if (need && !done.has(need)) continue;
      done.add(`${kind}${stage}.${m}`);
      list.shift();
      moved = true;
    }
  }
  return left.every((list) => list.length === 0);
}
