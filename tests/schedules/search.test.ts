import assert from "node:assert/strict";
import { test } from "node:test";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { Memory, StageMemory } from "../../lib/schedules/price/memory.ts";
import { search } from "../../lib/schedules/search/search.ts";
import { type Costs, stageCosts, unitCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { random } from "./support.ts";

const activations: Memory = () => ({ activations: 1, derivatives: 0 });

interface Case {
  /** F, I, W and, where it is not I + W, B of each rank, whole numbers. */
  times: [number, number, number, number?][];
  comm: number;
  microbatches: number;
  memory: StageMemory;
  cap: number;
}

/**
 * The least makespan, by looking at every state that can be reached at every moment: each free rank starts whatever it
 * can, or idles. Whole costs only; nothing of it is shared with the search.
 */
function bruteForce({ times, comm, microbatches: m, memory, cap }: Case): number {
  const n = times.length;
  const { activations: a, derivatives: d, released = 0 } = memory;
  interface Rank {
    ran: readonly number[];
    busy: number;
    /** For each activation and gradient on its way here, the time it still takes. */
    forward: readonly number[];
    gradient: readonly number[];
  }
  const tick = (left: readonly number[]) => left.map((time) => Math.max(0, time - 1));
  const none = { ran: [0, 0, 0], busy: 0, forward: [], gradient: [] };
  let states = [times.map((_, r): Rank => r === 0 ? { ...none, forward: Array(m).fill(0) } : none)];
  for (let now = 0;; now++) {
    const after = new Map<string, Rank[]>();
    const step = (state: Rank[], rank: number) => {
      if (rank === n) {
        const next = state.map(({ ran, busy, forward, gradient }) => ({
          ran,
          busy: Math.max(0, busy - 1),
          forward: tick(forward),
          gradient: tick(gradient),
        }));
        const key = next.map(({ ran, busy, forward, gradient }) => [ran, busy, forward, gradient].join(" ")).join("|");
        after.set(key, next);
        return;
      }
      step(state, rank + 1);
      const { ran, busy, forward, gradient } = state[rank];
      const [f, i, w] = ran;
      if (busy > 0) return;
      const held = f * a + i * (d - released) - w * (a - released + d);
      const start = (kind: number) => {
        const time = times[rank][kind] ?? times[rank][1] + times[rank][2];
        // A B is an I and a W that end together.
        const counts = kind === 3 ? [f, i + 1, w + 1] : ran.with(kind, ran[kind] + 1);
        const next = state.with(rank, { ...state[rank], ran: counts, busy: time });
        const send = (to: number, what: "forward" | "gradient") => {
          next[to] = { ...next[to], [what]: [...next[to][what], time + comm] };
        };
        if (kind === 0 && rank < n - 1) send(rank + 1, "forward");
        if ((kind === 1 || kind === 3) && rank > 0) send(rank - 1, "gradient");
        step(next, rank + 1);
      };
      if (f < m && forward[f] === 0 && held + a <= cap) start(0);
      if (i < f && (rank === n - 1 || gradient[i] === 0) && held + d <= cap) start(1);
      if (i < f && (rank === n - 1 || gradient[i] === 0)) start(3);
      if (w < i) start(2);
    };
    for (const state of states) {
      if (state.every(({ ran, busy }) => ran[2] === m && busy === 0)) return now;
      step(state, 0);
    }
    states = [...after.values()];
  }
}

function costsOf({ times, comm }: Case): Costs {
  return stageCosts(times.map(([f, i, w, b]) => ({ f, i, w, b })), comm);
}

async function compare(one: Case): Promise<void> {
  const { memory, cap, microbatches } = one;
  const costs = costsOf(one);
  const found = await search({ devices: one.times.length, microbatches, costs, memory: () => memory, cap });
  validate(found.schedule);
  const { makespan, peak } = simulate(found.schedule, costs, () => memory);
  const where = JSON.stringify(one);
  assert.ok(Math.abs(makespan - found.makespan) < 1e-9, where);
  assert.ok(Math.max(...peak) <= cap, where);
  assert.ok(found.proven, where);
  assert.equal(makespan, bruteForce(one), where);
}

test("search() is optimal against brute force for every N and M up to 3 x 4 with unit costs, at every cap", async () => {
  for (let devices = 1; devices <= 3; devices++) {
    for (let microbatches = 1; microbatches <= 4; microbatches++) {
      for (let cap = 1; cap <= microbatches; cap++) {
        const times = Array.from({ length: devices }, () => [1, 1, 1] as Case["times"][number]);
        await compare({ times, comm: 0, microbatches, memory: { activations: 1, derivatives: 0 }, cap });
      }
    }
  }
});

test("search() is optimal against brute force with random whole costs, links and memory", async () => {
  const next = random(29);
  const draw = (least: number, most: number) => least + Math.floor(next() * (most - least + 1));
  for (let turn = 0; turn < 30; turn++) {
    const [devices, microbatches] = turn % 3 === 0 ? [3, 2] : [2, draw(1, 4)];
    const times = Array.from(
      { length: devices },
      () => [draw(1, 3), draw(1, 3), draw(1, 3)] as Case["times"][number],
    );
    if (turn % 2 === 1) { for (const each of times) each[3] = draw(Math.max(each[1], each[2]), each[1] + each[2] + 1); }
    const memory = { activations: 3, derivatives: draw(0, 3), released: draw(0, 2) };
    const cap = draw(3 + memory.derivatives, (3 + memory.derivatives) * microbatches);
    await compare({ times, comm: draw(0, 2), microbatches, memory, cap });
  }
});

test("search() reaches 27 for 4 devices and 8 micro-batches with unit costs at 1F1B's memory", async () => {
  const { schedule, makespan, proven } = await search({ devices: 4, microbatches: 8, memory: activations, cap: 4 });
  assert.equal(makespan, 27);
  assert.ok(proven);
  assert.equal(Math.max(...simulate(schedule, undefined, activations).peak), 4);
});

test("where a B costs less than its I and W, search() mixes them: no slower than the schedule, fill and select", async () => {
  const costs = stageCosts([0, 1].map(() => ({ f: 1, i: 1, w: 1, b: 1.5 })));
  const base = generate("1f1b-2", { devices: 2 });
  const { schedule, makespan, proven } = await search({ devices: 2, microbatches: 4, costs });
  assert.ok(proven);
  assert.equal(simulate(base, costs).makespan, 12.5);
  assert.equal(makespan, 12); // 13 with every B split
  const memory = { activations: 1, derivatives: 1 };
  assert.equal(bruteForce({ times: [[2, 2, 2, 3], [2, 2, 2, 3]], comm: 0, microbatches: 4, memory, cap: 100 }), 24);
  const used = new Set(schedule.actions.flat().map(({ kind }) => kind));
  assert.deepEqual([...used].sort(), ["B", "F", "I", "W"]);
  const large = stageCosts(Array.from({ length: 6 }, () => ({ f: 1, i: 1, w: 1.2, b: 1.7 })), 0.1);
  const six = generate("1f1b-2", { devices: 6 });
  const found = await search({ devices: 6, microbatches: 12, costs: large, budget: 20_000 });
  for (const other of [six, twoStage(six, { costs: large }), twoStage(six, { policy: "select", costs: large })]) {
    assert.ok(found.makespan <= simulate(other, large).makespan * (1 + 1e-9));
  }
  assert.ok(found.lowerBound <= found.makespan);
});

test("search() beats the greedy filling where w is small", async () => {
  const costs = unitCosts({ w: 0.4 });
  const { makespan, proven } = await search({ devices: 4, microbatches: 8, costs });
  const greedy = simulate(twoStage(generate("1f1b-2", { devices: 4 }), { costs }), costs).makespan;
  assert.ok(proven && makespan < greedy, `${makespan} against ${greedy}`);
});

test("search() proves 4 x 4 with costs that differ by stage and links", async () => {
  const next = random(31);
  for (let turn = 0; turn < 12; turn++) {
    const cost = () => 0.1 + next();
    const costs = stageCosts(Array.from({ length: 4 }, () => ({ f: cost(), i: cost(), w: cost() })), next() / 2);
    const { proven } = await search({ devices: 4, microbatches: 4, costs, memory: activations, cap: 1 + turn % 4 });
    assert.ok(proven);
  }
});

test("search() is never below its lower bound nor above the zoo at the same memory", async () => {
  for (const [devices, microbatches] of [[2, 6], [5, 10], [8, 16]]) {
    for (const comm of [0, 0.3]) {
      const costs = unitCosts({ comm });
      const found = await search({ devices, microbatches, costs, memory: activations, cap: devices, budget: 30_000 });
      const h1 = simulate(generate("zb-h1", { devices, microbatches }), costs).makespan;
      assert.ok(found.lowerBound <= found.makespan + 1e-9 && found.makespan <= h1 + 1e-9);
    }
  }
});

test("search() stops on its signal with the best so far and says it is not proven", async () => {
  const stop = new AbortController();
  const options = {
    devices: 8,
    microbatches: 24,
    costs: unitCosts({ comm: 0.3 }),
    memory: activations,
    cap: 3,
    budget: 1e9,
  };
  let lowest = Infinity;
  const found = await search({
    ...options,
    signal: stop.signal,
    onProgress: ({ best }) => {
      lowest = best;
      stop.abort();
    },
  });
  assert.ok(found.makespan <= lowest && !found.proven && found.lowerBound < found.makespan);
  validate(found.schedule);
});

test("search() gives the same schedule twice", async () => {
  const options = {
    devices: 5,
    microbatches: 7,
    costs: unitCosts({ comm: 0.4 }),
    memory: activations,
    cap: 4,
    budget: 20_000,
  };
  assert.deepEqual(await search(options), await search(options));
});

test("search() explains a cap under which nothing fits, and bad sizes", async () => {
  await assert.rejects(search({ devices: 2, microbatches: 2, cap: 0.5 }), {
    name: "UserError",
    message: "A cap of 0.5 is too small: rank 0 needs 1 for a single micro-batch",
  });
  await assert.rejects(search({ devices: 0, microbatches: 2 }), /whole number of devices/);
});

test("a search does not blame the cap for costs whose sum is no number", async () => {
  const costs = unitCosts({ f: 1e308, i: 1, w: 1 });
  for (const cap of [Infinity, 100]) {
    await assert.rejects(search({ devices: 2, microbatches: 4, costs, cap }), /^UserError: The costs are too large: /);
  }
});

test("search() places stages as it is told, and is no slower than the zoo's schedules of that placement", async () => {
  const costs = unitCosts({ comm: 0.2 });
  for (
    const [placement, devices, microbatches] of [["zb-v", 2, 4], ["hanayo", 4, 4], ["interleaved-1f1b", 2, 4]] as const
  ) {
    const from = generate(placement, { devices, microbatches });
    const cap = Math.max(...simulate(from, costs, activations).peak);
    const options = { microbatches, costs, memory: activations, cap, budget: 20_000 };
    const found = await search({ devices, placement, ...options });
    validate(found.schedule);
    assert.deepEqual(found.schedule.placement, from.placement);
    const { makespan, peak } = simulate(found.schedule, costs, activations);
    assert.ok(Math.abs(makespan - found.makespan) < 1e-9 && Math.max(...peak) <= cap);
    assert.ok(makespan <= simulate(from, costs).makespan * (1 + 1e-9));
    assert.ok(found.lowerBound <= makespan);
  }
});

test("search() is no slower than the schedule that it starts from, and has its placement", async () => {
  // Stages of one's own: three on two ranks.
  const placement = [0, 1, 1], own = generate("naive", { devices: 3, microbatches: 3 });
  const actions = placement.reduce<Schedule["actions"][number][]>(
    (lists, rank, stage) => lists.with(rank, [...(lists[rank] ?? []), ...own.actions[stage]]),
    [[], []],
  );
  const from = { name: "mine", placement, actions: actions.map((list) => turns(list, 3)) };
  const found = await search({ from, microbatches: 3, budget: 20_000 });
  assert.deepEqual(found.schedule.placement, placement);
  assert.ok(found.proven && found.makespan < simulate(from).makespan);
});

/** Micro-batch after micro-batch: forwards down, then backwards up again. */
function turns(list: Schedule["actions"][number], microbatches: number): Schedule["actions"][number] {
  return Array.from({ length: microbatches }, (_, microbatch) => {
    const own = list.filter(({ microbatches: [each] }) => each === microbatch);
    const of = (kind: string) => own.filter((action) => action.kind === kind).sort((a, b) => a.stage - b.stage);
    return [...of("F"), ...of("B").reverse()];
  }).flat();
}

test("search() bounds what it cannot prove to within a percent: 8 x 16 with random costs under caps", async () => {
  const next = random(7);
  const draw = () => 0.5 + next();
  const costs = stageCosts(Array.from({ length: 8 }, () => ({ f: draw(), i: draw(), w: draw() })), 0.1 * draw());
  for (const cap of [Infinity, 8]) {
    const found = await search({ devices: 8, microbatches: 16, costs, memory: activations, cap, budget: 50_000 });
    assert.ok(found.makespan / found.lowerBound < 1.01, `${found.makespan} against ${found.lowerBound}`);
    assert.ok(Math.abs(simulate(found.schedule, costs).makespan - found.makespan) < 1e-9);
  }
});

test("search() refuses placements that leave ranks out, or do not fit to what it starts from", async () => {
  const from = generate("zb-v", { devices: 2, microbatches: 4 });
  for (
    const [options, message] of [
      [{ placement: [0, 2], microbatches: 1 }, /needs a stage on every rank, and rank 1 has none/],
      [{ placement: [0, 1.5], microbatches: 1 }, /Stage 1 is placed on rank 1.5/],
      [{ placement: [0, 2], devices: 2, microbatches: 1 }, /Stage 1 is placed on rank 2; the ranks are 0 to 1/],
      [{ placement: [], microbatches: 1 }, /A placement is a list with the rank of each stage/],
      [{ placement: "zb-v", microbatches: 4 }, /the placement of zb-v needs devices/],
      [{ placement: "zb-w", devices: 2, microbatches: 4 }, /Unknown schedule "zb-w"/],
      [{ from, microbatches: 5 }, /cannot start from zb-v, which has 4; give as many/],
      [
        { from, placement: [0, 1], microbatches: 4 },
        /starts from a schedule of its own placement, 0,1; zb-v has 0,1,1,0/,
      ],
    ] as const
  ) await assert.rejects(search(options), { name: "UserError", message });
});
