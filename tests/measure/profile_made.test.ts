/** Traces made of simulated steps, so that every time in them is known: read back, they give the costs that they were made of. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { clusterOf, fromTrace } from "../../lib/measure/mod.ts";
import { chromeTrace } from "../../lib/report/mod.ts";
import {
  type Costs,
  generate,
  type Schedule,
  scheduleNames,
  simulate,
  sizesOf,
  stageCosts,
  twoStage,
} from "../../lib/schedules/mod.ts";
import { sourcesOf, torchTraces } from "./torch_trace.ts";

/** Costs that differ from stage to stage; B takes less than I and W. */
function costsOf(schedule: Schedule): { costs: Costs; stages: { f: number; i: number; w: number; b: number }[] } {
  const stages = Array.from(
    { length: sizesOf(schedule).stages },
    (_, stage) => ({ f: 5 + stage, i: 4 + stage / 2, w: 6 - stage / 4, b: 9 + stage / 8 }),
  );
  return { costs: stageCosts(stages), stages };
}

const close = (actual: number | undefined, expected: number, what: string, apart = 1e-2) =>
  assert.ok(Math.abs(actual! - expected) < apart, `${what}: ${actual}, not ${expected}`);

/** Compares what a profile says of each stage with the costs; kinds that did not run are absent. */
function expectStages(read: ReturnType<typeof clusterOf>["stages"], schedule: Schedule): void {
  const { stages } = costsOf(schedule);
  const ran = new Set(schedule.actions.flat().map(({ kind, stage }) => `${kind.toLowerCase()}${stage}`));
  for (const [stage, costs] of stages.entries()) {
    for (const [kind, time] of Object.entries(costs)) {
      const key = kind as keyof typeof costs;
      if (ran.has(`${kind}${stage}`)) close(read[stage][key] as number, time, `${kind} of stage ${stage}`);
      else assert.equal(read[stage][key], undefined);
    }
  }
}

for (const inside of ["operations", "kernels", "repetitions"] as const) {
  test(`every schedule of the zoo, with ${inside} in its trace, gives the costs it was simulated with`, async () => {
    for (const name of scheduleNames) {
      const base = generate(name, { devices: 4 });
      for (const schedule of sizesOf(base).split ? [base] : [base, twoStage(base)]) {
        const { costs } = costsOf(schedule);
        const profile = await fromTrace(sourcesOf(torchTraces(schedule, costs, { inside, steps: 2, comm: 0.25 })));
        assert.deepEqual(profile.schedule!.placement, schedule.placement);
        assert.deepEqual(profile.schedule!.actions, schedule.actions);
        expectStages(clusterOf(profile).stages, schedule);
        const { makespan } = simulate(schedule, { ...costs, transfer: (from, to) => from === to ? 0 : 0.25 });
        for (const { length } of profile.steps) close(length, makespan, `a step of ${name}`, 0.02);
        for (const { what, time } of profile.messages) close(time.median, 0.25, `a message ${what} of ${name}`, 0.02);
      }
    }
  });
}

test("annotations alone: the wait for a message is taken out as far as its maker's end tells it", async () => {
  for (const name of ["gpipe", "1f1b-1", "zb-h1", "zb-v", "dualpipe-v"]) {
    const schedule = generate(name, { devices: 4 });
    const { costs } = costsOf(schedule);
    const profile = await fromTrace(sourcesOf(torchTraces(schedule, costs, { inside: "nothing" })));
    expectStages(clusterOf(profile).stages, schedule);
  }
});

test("names of the zoo and policies are recognized, and another order is called traced", async () => {
  for (const policy of ["fill", "end"] as const) {
    const schedule = twoStage(generate("1f1b-2", { devices: 4 }), { policy });
    const profile = await fromTrace(sourcesOf(torchTraces(schedule, costsOf(schedule).costs)));
    assert.deepEqual([profile.schedule!.name, profile.schedule!.policy], ["1f1b-2", policy]);
  }
  const own = structuredClone(generate("gpipe", { devices: 2, microbatches: 3 }));
  (own.actions[1] as unknown[]).splice(0, 2, own.actions[1][1], own.actions[1][0]);
  const profile = await fromTrace(sourcesOf(torchTraces(own, costsOf(own).costs)));
  assert.equal(profile.schedule!.name, "traced");
  assert.deepEqual(profile.schedule!.actions, own.actions);
});

test("slow first steps are left out as a warm-up, and said; a number of them may be asked for", async () => {
  const schedule = generate("1f1b-1", { devices: 2 });
  const sources = sourcesOf(torchTraces(schedule, costsOf(schedule).costs, { steps: 6, slow: [9, 2] }));
  const profile = await fromTrace(sources);
  assert.deepEqual(profile.steps.map(({ name }) => name), [7, 8, 9, 10].map((step) => `ProfilerStep#${step}`));
  assert.deepEqual(profile.dropped.map(({ name }) => name), ["ProfilerStep#5", "ProfilerStep#6"]);
  assert.match(profile.dropped[0].why, /^a warm-up: \d+\.\d ms, 9\.0 times the median of the steps after it$/);
  expectStages(clusterOf(profile).stages, schedule);
  assert.equal((await fromTrace(sources, { warmup: 0 })).steps.length, 6);
  assert.equal((await fromTrace(sources, { warmup: 5 })).steps.length, 1);
  await assert.rejects(() => fromTrace(sources, { warmup: 6 }), {
    message: "A warm-up of 6 steps leaves none: there are 6 whole steps",
  });
});

test("one slow action among many is an outlier and named", async () => {
  const schedule = generate("gpipe", { devices: 2, microbatches: 8 });
  const { costs } = costsOf(schedule);
  const late: Costs = {
    ...costs,
    duration: (action, rank, index) =>
      costs.duration(action, rank, index) + (rank === 0 && index === 3 ? 40 : 0.01 * index),
  };
  const { stages: [{ f }] } = await fromTrace(sourcesOf(torchTraces(schedule, late, { steps: 1 })));
  assert.equal(f!.outliers.length, 1);
  close(f!.outliers[0], 45, "the outlier", 0.1);
});

test("clocks of four machines are found within the error that is said, and the costs stay right", async () => {
  const schedule = generate("1f1b-1", { devices: 4 });
  const ahead = [0, 700, -3000, 12], hosts = ["a", "b", "c", "d"];
  const profile = await fromTrace(
    sourcesOf(torchTraces(schedule, costsOf(schedule).costs, { ahead, hosts, comm: 0.5 })),
  );
  for (const [rank, clock] of profile.clocks.entries()) {
    close(clock.ahead, ahead[rank], `the clock of rank ${rank}`, clock.error + 0.01);
    assert.ok(clock.error <= 1.51, `an error of ${clock.error}`);
  }
  expectStages(clusterOf(profile).stages, schedule);
});

test("actions that run overlapped share their time, and are no costs where others are", async () => {
  const schedule = generate("dualpipe-v", { devices: 2 });
  const { costs } = costsOf(schedule);
  const texts = torchTraces(schedule, costs, { inside: "nothing", steps: 1 });
  let pairs = 0;
  const joined = texts.map((text) => {
    const trace = JSON.parse(text);
    const events = trace.traceEvents as { name: string; ts: number; dur: number }[];
    for (let at = events.length - 1; at > 0; at--) {
      const [first, second] = [events[at - 1], events[at]];
      if (pairs === 1 || !/F\d/.test(first.name) || !/B\d/.test(second.name)) continue;
      first.name = `PP:(${first.name.slice(3)};${second.name.slice(3)})OVERLAP_F_B`;
      first.dur = second.ts + second.dur - first.ts;
      events.splice(at--, 1);
      pairs++;
    }
    return JSON.stringify(trace);
  });
  assert.equal(pairs, 1);
  const profile = await fromTrace(sourcesOf(joined));
  assert.deepEqual(profile.schedule!.actions, schedule.actions);
  expectStages(clusterOf(profile).stages, schedule);
  assert.match(profile.notes.join(), /overlapped/);
});

test("steps that a rank's trace lacks are left out, with marks by name and without by time", async () => {
  const schedule = generate("1f1b-1", { devices: 2 });
  for (const marks of [true, false]) {
    const texts = torchTraces(schedule, costsOf(schedule).costs, { steps: 4, marks });
    const trace = JSON.parse(texts[1]);
    const first = trace.traceEvents.findIndex((event: { name: string }, at: number) =>
      at > 1 && event.name === (marks ? "ProfilerStep#6" : "PP:1F0")
    );
    trace.traceEvents.splice(0, first);
    const profile = await fromTrace(sourcesOf([texts[0], JSON.stringify(trace)]));
    assert.equal(profile.steps.length, 3);
    assert.equal(profile.dropped.length, 1);
    expectStages(clusterOf(profile).stages, schedule);
  }
});

test("a step that the profiler cut off is left out, and said", async () => {
  const schedule = generate("1f1b-1", { devices: 2 });
  const texts = torchTraces(schedule, costsOf(schedule).costs, { steps: 4 });
  const trace = JSON.parse(texts[0]);
  const last = trace.traceEvents.findLastIndex((event: { name: string }) => event.name === "PP:0B1");
  trace.traceEvents.splice(last);
  const { steps, dropped } = await fromTrace(sourcesOf([JSON.stringify(trace), texts[1]]));
  assert.equal(steps.length, 3);
  assert.deepEqual(dropped, [{ name: "Rank 0, ProfilerStep#8", why: "it has 3 of 4 actions" }]);
});

test("an annotation that is written twice is one, and the order of events in a file does not matter", async () => {
  const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
  for (const inside of ["operations", "kernels", "repetitions"] as const) {
    const texts = torchTraces(schedule, costsOf(schedule).costs, { inside });
    const twice = texts.map((text) => {
      const trace = JSON.parse(text);
      const again = trace.traceEvents.filter(({ cat }: { cat: string }) => cat === "user_annotation");
      trace.traceEvents = [...again, ...trace.traceEvents].toReversed();
      return JSON.stringify(trace);
    });
    assert.deepEqual(await fromTrace(sourcesOf(twice)), await fromTrace(sourcesOf(texts)));
  }
});

test("ranks of a larger job, and files that do not name theirs, are put in the order of the pipeline", async () => {
  const schedule = generate("1f1b-1", { devices: 3 });
  for (const ranks of [[1, 5, 9], [undefined, undefined, undefined]]) {
    const texts = torchTraces(schedule, costsOf(schedule).costs, { ranks });
    const profile = await fromTrace(sourcesOf(texts).toReversed());
    assert.deepEqual(profile.schedule!.placement, [0, 1, 2]);
    expectStages(clusterOf(profile).stages, schedule);
  }
});

test("a trace of this project gives the costs that it was simulated with", async () => {
  for (const name of ["1f1b-2", "zb-v", "interleaved-1f1b"]) {
    const base = generate(name, { devices: 2 });
    const schedule = sizesOf(base).split ? base : twoStage(base);
    const { costs } = costsOf(schedule);
    const timeline = simulate(schedule, costs);
    const profile = await fromTrace([{ name: "ours", text: chromeTrace(schedule, timeline) }]);
    assert.deepEqual([profile.source, profile.schedule!.actions], ["twobp", schedule.actions]);
    expectStages(clusterOf(profile).stages, schedule);
    close(profile.steps[0].length, timeline.makespan, name);
  }
});

test("a table of times is read as CSV, as JSON rows, and as the file that import writes", async () => {
  const csv = "stage,kind,ms,width\n0,F,2,1\n0,F,4,1\n0,B,6,1\n1,F,5,1\n1,I,1,1\n1,W,7,2\r\n";
  const rows = [[0, "F", 2000], [0, "F", 4000], [0, "B", 6000], [1, "F", 5000], [1, "I", 1000], {
    stage: 1,
    kind: "W",
    ms: 7,
    width: 2,
  }];
  const stages = [{ f: 3, b: 6 }, { f: 5, i: 1, w: { 2: 7 } }];
  for (const text of [csv, JSON.stringify(rows), JSON.stringify({ schema: 1, ranks: 2, stages })]) {
    const profile = await fromTrace([{ name: "times", text }]);
    assert.deepEqual([profile.source, profile.ranks, profile.steps, profile.schedule], ["times", 2, [], undefined]);
    assert.deepEqual(clusterOf(profile), { ranks: 2, stages, messages: [] });
  }
});
