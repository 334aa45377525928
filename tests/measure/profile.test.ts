/** Traces that PyTorch 2.15 wrote on two CPU processes; what its stages took was measured inside of them, and stands beside. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { clusterOf, fromTrace, median, type Profile } from "../../lib/measure/mod.ts";
import { clusterCosts, simulate, toCsv } from "../../lib/schedules/mod.ts";

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/traces/${name}`, import.meta.url));
const files = (name: string) => [0, 1].map((rank) => fixture(`${name}.rank${rank}.json.gz`));
const textsOf = (name: string, change: (text: string) => string = (text) => text) =>
  files(name).map((path) => ({ name: path, text: change(gunzipSync(readFileSync(path)).toString()) }));

/** Medians in milliseconds of what the stages of a run measured themselves. */
function truth(name: string, stage: number, kind: string): number {
  const rows: [number, string, number][] = JSON.parse(
    readFileSync(fixture(`${name}.rank${stage}.compute_us.json`), "utf8"),
  );
  return median(rows.filter(([, each]) => each === kind).map(([, , time]) => time / 1000));
}

function expectCosts(profile: Profile, name: string, kinds: string): void {
  const { stages } = clusterOf(profile);
  for (const [stage, times] of stages.entries()) {
    assert.deepEqual(Object.keys(times).join(""), kinds);
    for (const [kind, time] of Object.entries(times)) {
      const right = truth(name, stage, kind.toUpperCase());
      // PyTorch's first stage has no I: what is left there are 0.06 ms of the host.
      const apart = right < 0.1 ? 0.06 : 0.05 * right;
      assert.ok(
        Math.abs(time as number - right) < apart,
        `${name}: ${kind} of stage ${stage} is ${time}, not ${right}`,
      );
    }
  }
}

const runs = [
  { name: "1f1b-1", kinds: "fb", policy: undefined, csv: "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n" },
  {
    name: "1f1b-1-2bp",
    kinds: "fiw",
    policy: "fill",
    csv: "0F0,0F1,0I0,0W0,0I1,0W1\n1F0,1I0,1F1,1I1,1W0,1W1\n",
  },
] as const;

for (const { name, kinds, policy, csv } of runs) {
  test(`${name}: costs are those that the stages measured, within 5 %, and the schedule is told`, async () => {
    const profile = await fromTrace(files(name));
    expectCosts(profile, name, kinds);
    assert.deepEqual([profile.source, profile.ranks, profile.schedule!.name], ["torch", 2, "1f1b-1"]);
    assert.equal(profile.schedule!.policy, policy);
    assert.equal(toCsv(profile.schedule!), csv);
    assert.deepEqual(profile.steps.map((step) => step.name), ["ProfilerStep#1", "ProfilerStep#2", "ProfilerStep#3"]);
    assert.deepEqual(profile.dropped, []);
    assert.deepEqual(profile.clocks, [{ ahead: 0, error: 0 }, { ahead: 0, error: 0 }]);
  });

  test(`${name}: each step simulated with its own times is as long as it was, within 3 %`, async () => {
    const profile = await fromTrace(files(name));
    const costs = clusterCosts(clusterOf(profile));
    for (const step of profile.steps) {
      const own = {
        ...costs,
        duration: (_: unknown, rank: number, index: number) => {
          const { began, end } = step.ranks[rank][index];
          return profile.hosts[rank]!.median + end - began;
        },
      };
      const { makespan } = simulate(profile.schedule!, own);
      assert.ok(Math.abs(makespan / step.length - 1) < 0.03, `${step.name}: ${makespan} for ${step.length} ms`);
    }
  });

  test(`${name}: without step marks a step is told by its first forward coming again`, async () => {
    const unmarked = textsOf(name, (text) => text.replaceAll("ProfilerStep#", "epoch "));
    const [profile, marked] = [await fromTrace(unmarked), await fromTrace(files(name))];
    assert.deepEqual(profile.steps.map((step) => step.name), ["step 0", "step 1", "step 2"]);
    assert.deepEqual(profile.stages, marked.stages);
    assert.deepEqual(profile.steps.map(({ ranks }) => ranks), marked.steps.map(({ ranks }) => ranks));
  });

  test(`${name}: without operations inside, the producer's end on the other rank is where work begins`, async () => {
    const bare = textsOf(
      name,
      (text) => text.replaceAll('"cat": "cpu_op"', '"cat": "none"').replaceAll("gloo:recv", "x"),
    );
    const profile = await fromTrace(bare);
    const whole = await fromTrace(files(name));
    profile.steps.forEach(({ ranks, messages }, at) => {
      for (const { to, sent, used } of messages) {
        assert.ok(used >= sent - 1e-3, "nobody uses what is not sent");
        const action = ranks[to].find(({ began }) => began === used)!;
        assert.ok(Math.abs(used - Math.max(action.start, sent)) < 1e-3);
      }
      // Posting a message and the host's part of an action, some tenths of a millisecond, cannot be told from work then.
      ranks.flat().forEach(({ began }, index) => {
        assert.ok(began <= whole.steps[at].ranks.flat()[index].began + 1e-3);
      });
    });
  });
}

test("ranks given in another order, unpacked or as texts come to the same", async () => {
  const profile = await fromTrace(files("1f1b-1"));
  assert.deepEqual(await fromTrace(files("1f1b-1").toReversed()), profile);
  assert.deepEqual(await fromTrace(textsOf("1f1b-1")), profile);
});

test("a clock that is ahead is found out, on another machine and on the same one", async () => {
  const shifted = (host: string) => {
    const texts = textsOf("1f1b-1-2bp");
    const events = JSON.parse(texts[1].text);
    events.host_name = host;
    for (const event of events.traceEvents) if (typeof event.ts === "number") event.ts += 40_000;
    return [texts[0], { name: "rank1", text: JSON.stringify(events) }];
  };
  const right = await fromTrace(files("1f1b-1-2bp"));
  for (const host of ["host", "another"]) {
    const profile = await fromTrace(shifted(host));
    const { ahead, error } = profile.clocks[1];
    assert.ok(Math.abs(ahead - 40) <= error && error < 1, `${ahead} ± ${error}`);
    profile.steps.forEach(({ length }, at) => assert.ok(Math.abs(length - right.steps[at].length) < 1));
    expectCosts(profile, "1f1b-1-2bp", "fiw");
  }
});
