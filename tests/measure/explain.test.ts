import assert from "node:assert/strict";
import { test } from "node:test";
import { accountsOf, type StepAccount } from "../../lib/measure/explain/account.ts";
import { explainProfile } from "../../lib/measure/explain/explain.ts";
import { clusterOf } from "../../lib/measure/profile/cluster.ts";
import type { Profile } from "../../lib/measure/profile/profile.ts";
import { UserError } from "../../lib/errors.ts";
import { stageCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { formatAction, type Schedule } from "../../lib/schedules/schedule.ts";
import { generate, scheduleNames } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { type Run, tracedRun } from "./traced.ts";

const near = (a: number, b: number, within = 1e-9) =>
  assert.ok(Math.abs(a - b) <= within * Math.max(1, Math.abs(b)), `${a} is not ${b}`);

const equal = (count: number) => Array.from({ length: count }, () => ({ F: 1, I: 1, W: 1, B: 2 }));
const uneven = (count: number) =>
  Array.from({ length: count }, (_, stage) => ({ F: 3 + stage, I: 2 + 0.5 * stage, W: 4, B: 5.25 + 0.5 * stage }));

function schedules(devices: number): Schedule[] {
  return scheduleNames.flatMap((name) => {
    const base = generate(name, { devices });
    const isWhole = base.actions.flat().every(({ kind }) => kind === "F" || kind === "B");
    return isWhole ? [base, twoStage(base), twoStage(base, { policy: "end" })] : [base];
  });
}

/** Sums of a step's parts, each rank's the length of the step. */
function checkSums({ length, ranks, segments, criticalPath }: StepAccount) {
  for (const { compute, waits, waiting, messages, host, tail, idle } of ranks) {
    const { F, I, W, B } = compute;
    near(F + I + W + B + waiting + messages + host + tail + idle, length);
    near(waits.reduce((sum, { time }) => sum + time, 0), waiting);
    for (const { time, causes } of waits) near(causes.reduce((sum, cause) => sum + cause.time, 0), time);
  }
  for (const list of [...segments, criticalPath]) {
    assert.equal(list[0].start, 0);
    assert.equal(list[list.length - 1].end, length);
    list.forEach(({ start }, at) => at > 0 && assert.equal(start, list[at - 1].end));
  }
}

test("the parts of every rank, every wait's causes and the critical path add up to the step, whatever ran", () => {
  for (const devices of [2, 3, 4]) {
    for (const schedule of schedules(devices)) {
      const stages = uneven(schedule.placement.length);
      for (const stands of [false, true]) {
        const run: Run = { stages, comm: 0.75, host: 0.25, tail: 1.5, noise: 0.3, steps: 2, stands };
        accountsOf(tracedRun(schedule, run), schedule).forEach(checkSums);
      }
    }
  }
});

test("clocks that disagree, so that a message comes before it was sent, break no sum", () => {
  const schedule = twoStage(generate("1f1b-2", { devices: 3 }));
  const profile = tracedRun(schedule, { stages: uneven(3), comm: 0.1, host: 0.2, noise: 0.2, steps: 3 });
  const shifted = profile.steps.map((step) => ({
    ...step,
    ranks: step.ranks.map((list, rank) =>
      list.map(({ action, start, began, end }) => {
        const late = Math.max(0, 1.5 * (2 - rank) - 1);
        return { action, start: start + late, began: began + late, end: Math.min(step.length, end + late) };
      })
    ),
  }));
  accountsOf({ ...profile, steps: shifted }, schedule).forEach(checkSums);
});

test("two ranks by hand: who waits for what, and why that was late", () => {
  // Rank 0: F0 to 1, F1 to 2, waits to 5, B0 to 7, waits to 9, B1 to 11.
  // Rank 1: waits to 1, F0 to 2, B0 to 5, F1 to 6, B1 to 9, done.
  const schedule = generate("1f1b-1", { devices: 2 });
  const stages = [{ F: 1, I: 0, W: 0, B: 2 }, { F: 1, I: 0, W: 0, B: 3 }];
  const [{ ranks, length, criticalPath }] = accountsOf(tracedRun(schedule, { stages, steps: 1 }), schedule);
  const words = ranks.map(({ waits }) =>
    waits.map(({ action, for: source, of, time, causes }) =>
      `${formatAction(action)} waits ${time} for ${formatAction(source)} of rank ${of}: ` +
      causes.map((cause) => `${cause.kind} ${formatAction(cause.action)} ${cause.time}`).join(", ")
    )
  );
  assert.deepEqual(words, [
    [
      "0B0 waits 3 for 1B0 of rank 1: compute 1B0 3",
      "0B1 waits 2 for 1B1 of rank 1: compute 1B1 2",
    ],
    ["1F0 waits 1 for 0F0 of rank 0: compute 0F0 1"],
  ]);
  assert.equal(length, 11);
  assert.deepEqual(ranks[1].compute, { F: 2, I: 0, W: 0, B: 6, R: 0 });
  assert.equal(ranks[1].idle, 2);
  const path = criticalPath.map(({ kind, action }) => `${kind} ${formatAction(action!)}`);
  assert.deepEqual(path, ["0F0", "1F0", "1B0", "1F1", "1B1", "0B1"].map((each) => `compute ${each}`));
});

test("a wait for a rank that itself waits is put down to whoever works", () => {
  const schedule = generate("naive", { devices: 3 });
  const [{ ranks }] = accountsOf(tracedRun(schedule, { stages: equal(3), steps: 1 }), schedule);
  const [{ action, causes }] = ranks[0].waits;
  assert.equal(formatAction(action), "0B0");
  assert.deepEqual(causes.map(({ action, rank, time }) => [formatAction(action), rank, time]), [
    ["1F0", 1, 1],
    ["2F0", 2, 1],
    ["2B0", 2, 2],
    ["1B0", 1, 2],
  ]);
});

test("messages and hosts have their own places, and their sums are what went into the run", () => {
  const schedule = generate("naive", { devices: 2 });
  const run = { stages: equal(2), comm: 0.5, host: 0.25, tail: 1, steps: 1 };
  const [{ ranks, length }] = accountsOf(tracedRun(schedule, run), schedule);
  assert.equal(length, 0.25 + 1 + 0.5 + 0.25 + 1 + 0.25 + 2 + 0.5 + 0.25 + 2 + 1);
  const [first, last] = ranks;
  near(first.messages, 0.5);
  near(first.waiting, 0.5 + 0.25 + 1 + 0.25 + 2);
  near(first.host, 0.25 + 0.25);
  near(last.messages, 0.5);
  near(last.host, 0.25 + 0.25);
  assert.equal(first.tail, 1);
  assert.equal(last.tail, 1);
  const kinds = first.waits[0].causes.map(({ kind }) => kind);
  assert.deepEqual(kinds, ["message", "host", "compute", "host", "compute"]);
});

test("the step that ran, simulated with its own costs, has the length that it was made with", async () => {
  for (const schedule of schedules(3)) {
    const run = { stages: uneven(schedule.placement.length), comm: 0.75, host: 0.25, tail: 1.5 };
    const { error, measured, simulation } = await explainProfile(tracedRun(schedule, run), { budget: 0, resamples: 1 });
    near(simulation.makespan, measured);
    assert.ok(Math.abs(error) < 1e-12);
  }
});

test("the gains are those of the schedules simulated with the costs that the run was made with", async () => {
  const stages = uneven(3), base = generate("1f1b-1", { devices: 3 });
  const costs = stageCosts(stages.map(({ F, I, W, B }) => ({ f: F, i: I, w: W, b: B })), 0.5);
  const plain = tracedRun(base, { stages, comm: 0.5 }), split = tracedRun(twoStage(base), { stages, comm: 0.5 });
  const { alternatives, best } = await explainProfile(plain, { also: [split] });
  const own = simulate(base, costs).makespan;
  for (const { kind, schedule, gain, makespan } of alternatives) {
    if (kind === "partition") continue;
    near(makespan, simulate(schedule, costs).makespan);
    near(gain, own / makespan);
  }
  const names = alternatives.map(({ name }) => name);
  for (const name of ["1f1b-1, 2BP fill", "1f1b-1, 2BP end", "gpipe, no 2BP", "work divided evenly"]) {
    assert.ok(names.includes(name), `${name} is among ${names.join("; ")}`);
  }
  const gains = alternatives.filter(({ kind }) => kind !== "partition").map(({ gain }) => gain);
  assert.deepEqual(gains, gains.toSorted((a, b) => b - a));
  near(simulate(best, costs).makespan, own / gains[0]);
});

test("a plain run says that it has no times of I and W, and a split one that B is taken for both", async () => {
  const base = generate("1f1b-1", { devices: 2 });
  const plain = await explainProfile(tracedRun(base, { stages: uneven(2) }));
  assert.ok(plain.notes.some((note) => note.includes("I and W of stage 0")));
  assert.ok(
    plain.alternatives.every(({ schedule }) => schedule.actions.flat().every(({ kind }) => "FB".includes(kind))),
  );
  const split = await explainProfile(tracedRun(twoStage(base), { stages: uneven(2) }));
  assert.ok(split.notes.some((note) => note.includes("I and W together")));
  const both = await explainProfile(tracedRun(base, { stages: uneven(2) }), {
    also: [tracedRun(twoStage(base), { stages: uneven(2) })],
  });
  assert.deepEqual(both.notes, []);
});

test("intervals hold the gain, are narrow where nothing varies, wider with noise, and the same each time", async () => {
  const schedule = twoStage(generate("1f1b-2", { devices: 2 }));
  const steady = await explainProfile(tracedRun(schedule, { stages: uneven(2) }), { budget: 0 });
  for (const { gain, interval } of steady.alternatives) {
    near(interval![0], gain);
    near(interval![1], gain);
  }
  const profile = tracedRun(schedule, { stages: uneven(2), noise: 0.2, steps: 8 });
  const varied = await explainProfile(profile, { budget: 0 });
  assert.ok(varied.alternatives.some(({ interval: [low, high] = [0, 0] }) => high - low > 0.005));
  for (const { gain, interval: [low, high] = [0, 0], range } of varied.alternatives) {
    assert.ok(range[0] <= Math.min(low, gain) && Math.max(high, gain) <= range[1]);
  }
  assert.deepEqual(await explainProfile(profile, { budget: 0 }), varied);
});

test("a cap leaves out what holds more activations", async () => {
  const stages = equal(4), base = generate("1f1b", { devices: 4 });
  const options = { also: [tracedRun(twoStage(base), { stages })], budget: 2000 };
  const held = async (cap?: number) => {
    const { alternatives } = await explainProfile(tracedRun(base, { stages }), { ...options, ...cap && { cap } });
    return alternatives.map(({ activations }) => activations);
  };
  assert.ok((await held()).some((most) => most > 4));
  assert.ok((await held(4)).every((most) => most <= 4));
});

test("whole layers move from the slower stage to the faster one", async () => {
  const base = generate("1f1b-2", { devices: 2 });
  const stages = [{ F: 2, I: 2, W: 2, B: 4 }, { F: 6, I: 6, W: 6, B: 12 }];
  const { alternatives } = await explainProfile(tracedRun(base, { stages }), { layers: [2, 6], budget: 0 });
  const [row] = alternatives.filter(({ kind }) => kind === "partition");
  assert.equal(row.name, "layers 4 + 4");
  const even = stageCosts([0, 1].map(() => ({ f: 4, i: 4, w: 4, b: 8 })));
  near(row.makespan, simulate(base, even).makespan);
});

test("what cannot be explained is refused in one line", async () => {
  const base = generate("1f1b-1", { devices: 2 }), profile = tracedRun(base, { stages: equal(2) });
  const refused = (promise: Promise<unknown>, message: RegExp) =>
    assert.rejects(promise, (error) => error instanceof UserError && message.test(error.message));
  await refused(explainProfile({ ...profile, steps: [] }), /no steps/);
  await refused(explainProfile(profile, { layers: [3] }), /one number for each stage: 2/);
  await refused(explainProfile(profile, { cap: -1 }), /cap/);
  const promised = Promise.resolve(profile) as unknown as Profile;
  assert.throws(() => clusterOf(promised), { name: "UserError", message: /^clusterOf: the profile must be a profile/ });
  await refused(
    explainProfile(promised),
    /^explainProfile: the profile must be a profile, as fromTrace\(\) returns, which has to be waited for/,
  );
  await refused(explainProfile(profile, { also: [promised] }), /`?also`? must be a list of profiles/);
  const other = tracedRun(generate("1f1b-1", { devices: 3 }), { stages: equal(3) });
  await refused(explainProfile(profile, { also: [other] }), /2 stages on 2 ranks, and the other 3 on 3/);
});
