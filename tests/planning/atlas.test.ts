/** The atlas against the simulator, policy by policy, against closed forms, and the kept one against what is computed now. */
import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { UserError } from "../../lib/errors.ts";
import { atlasCaps, atlasGrid, type AtlasPoint, atlasRanking, atlasRow } from "../../lib/planning/atlas.ts";
import { formatAtlas, readAtlas } from "../../lib/planning/atlas_file.ts";
import { atlasFigure, atlasTable, atlasWinsTable } from "../../lib/report/atlas.ts";
import { scheduleColours } from "../../lib/report/style.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { zoo } from "../../lib/schedules/generators/zoo.ts";
import { type Costs, stageCosts } from "../../lib/schedules/price/costs.ts";
import type { Memory } from "../../lib/schedules/price/memory.ts";
import type { PolicyText, Schedule } from "../../lib/schedules/schedule.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { wholeBackward } from "../../lib/schedules/transforms/whole.ts";

const kept = new URL("../../bench/results/atlas.json", import.meta.url);
const point: AtlasPoint = { devices: 4, microbatches: 8, weight: 2, forward: 0.5, message: 0.2 };
/** What has no other name in the zoo, and is a pipeline. */
const names = zoo.filter(({ name, sameAs }) => !sameAs && name !== "naive").map(({ name }) => name);

/** A schedule's costs and memory at a point: F 1, I 1 / forward, W of that weight times, shared by the stages of a rank. */
function pricesOf({ placement }: Schedule, { devices, weight, forward, message }: AtlasPoint): [Costs, Memory] {
  const stages = placement.length, share = devices / stages;
  const cost = { f: share, i: share / forward, w: share / forward * weight };
  const costs = stageCosts(Array.from({ length: stages }, () => cost), message);
  return [costs, () => ({ activations: share, derivatives: 0 })];
}

/** Step and highest peak of a schedule, action by action: passes over all ranks until no action is left. */
function played({ placement, actions }: Schedule, { devices, weight, forward, message }: AtlasPoint) {
  const share = devices / placement.length, times = { F: share, I: share / forward, W: 0, B: 0 };
  times.W = times.I * weight;
  times.B = times.I + times.W;
  const ends = new Map<string, number>(), next = actions.map(() => 0), free = actions.map(() => 0);
  const came = (what: string, stage: number, microbatch: number, rank: number) => {
    if (stage < 0 || stage >= placement.length) return 0;
    const end = ends.get(`${what} ${stage} ${microbatch}`);
    return end === undefined ? undefined : end + (placement[stage] === rank ? 0 : message);
  };
  let peak = 0;
  for (const list of actions) {
    let held = 0;
    for (const { kind } of list) {
      if (kind === "F") peak = Math.max(peak, held += share);
      if (kind === "W" || kind === "B") held -= share;
    }
  }
  for (let left = actions.flat().length; left > 0;) {
    for (const [rank, list] of actions.entries()) {
      const action = list[next[rank]];
      if (!action) continue;
      const { kind, stage, microbatches: [microbatch] } = action;
      const ready = kind === "F"
        ? came("out", stage - 1, microbatch, rank)
        : kind === "W"
        ? came("back", stage, microbatch, rank)
        : came("back", stage + 1, microbatch, rank);
      if (ready === undefined) continue;
      free[rank] = Math.max(free[rank], ready) + times[kind as "F"];
      if (kind === "F") ends.set(`out ${stage} ${microbatch}`, free[rank]);
      if (kind === "I" || kind === "B") ends.set(`back ${stage} ${microbatch}`, free[rank]);
      next[rank]++;
      left--;
    }
  }
  return { makespan: Math.max(...free), peak };
}

test("what stands at a point is what playing its schedule gives, and under each cap the best of its policies; no end, mid or every:2 is faster", () => {
  const row = atlasRow(point), near = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-4, `${a}, not ${b}`);
  const made = new Map<string, { makespan: number; peak: number }[]>();
  for (const name of names) {
    const base = generate(name, { devices: 4, microbatches: 8 }), [costs, memory] = pricesOf(base, point);
    const whole = sizesOf(base).split ? wholeBackward(base) : base;
    const policies: PolicyText[] = [
      "fill",
      "select",
      "end",
      "mid",
      "every:1",
      "every:2",
      "cap:4",
      "cap:8",
    ];
    const tried = policies.flatMap((policy) => {
      try {
        return [twoStage(whole, { policy, costs, memory })];
      } catch {
        return []; // a cap that cannot be kept
      }
    });
    const variants = [base, ...tried];
    made.set(name, []);
    for (const schedule of variants) {
      const { makespan, peak } = played(schedule, point);
      made.get(name)!.push({ makespan, peak });
      const entry = row.entries.find((each) => each.schedule === name && each.policy === schedule.policy);
      if (!entry) continue;
      near(entry.makespan, makespan);
      assert.equal(entry.peak, peak);
    }
  }
  for (const cap of atlasCaps) {
    const ranking = atlasRanking(row, cap);
    for (const name of names) {
      const fitting = made.get(name)!.filter(({ peak }) => peak <= 4 * cap);
      const entry = ranking.find(({ schedule }) => schedule === name);
      assert.equal(entry === undefined, fitting.length === 0, `${name} within ${cap}`);
      if (!entry) continue;
      const least = Math.min(...fitting.map(({ makespan }) => makespan));
      assert.ok(entry.makespan <= least + 1e-4, `${name} within ${cap}: ${entry.makespan}, and ${least} is possible`);
      assert.ok(entry.peak <= 4 * cap);
    }
    assert.deepEqual(
      ranking.map(({ makespan }) => makespan),
      ranking.map(({ makespan }) => makespan).sort((a, b) => a - b),
    );
  }
});

const rows = () => readAtlas(JSON.parse(readFileSync(kept, "utf8")));

test("plain 1F1B takes (M + N - 1) (F + I + W); with 2BP and F = I = W 1F1B takes 3M + N - 1, GPipe N - 1 more, and ZB-H1 as 1F1B", () => {
  for (const row of rows()) {
    const { devices, microbatches, weight, forward, message, plain } = row, i = 1 / forward;
    if (message > 0) continue;
    assert.equal(plain, (microbatches + devices - 1) * (1 + i + i * weight));
    if (weight !== 1 || forward !== 1) continue;
    const of = (name: string) => atlasRanking(row, Infinity).find(({ schedule }) => schedule === name)!;
    assert.equal(of("1f1b").makespan, 3 * microbatches + devices - 1); // 15 and 27 on four devices
    assert.equal(of("gpipe").makespan, 3 * microbatches + 2 * (devices - 1));
    assert.equal(of("gpipe").peak, microbatches);
    if (microbatches < 2 * devices) continue; // papers promise nothing then
    const { bubble, peak } = zoo.find(({ name }) => name === "zb-h1")!.published;
    assert.equal(of("zb-h1").makespan, 3 * microbatches + bubble(devices, microbatches));
    assert.equal(of("zb-h1").peak, peak(devices, microbatches, 1));
  }
});

test("the kept atlas has every point of the grid, is small, and at a sample of points what is computed now", () => {
  assert.ok(statSync(kept).size < 100_000, `${statSync(kept).size} bytes`);
  assert.deepEqual(rows().map(({ plain: _, entries: __, ...each }) => each), atlasGrid());
  const small = rows().filter(({ devices, microbatches }) => devices * microbatches <= 32);
  const sample = small.filter((_, at) => at % 13 === 0);
  sample.push(rows().find(({ devices, microbatches }) => devices === 8 && microbatches === 8)!);
  assert.ok(sample.length >= 8);
  for (const row of sample) {
    const { devices, microbatches, weight, forward, message } = row;
    assert.deepEqual(atlasRow({ devices, microbatches, weight, forward, message }), row);
  }
});

test("an atlas as text is read as it was, and what is none is refused with what it should be", () => {
  const made = [atlasRow(point), atlasRow({ ...point, devices: 2, microbatches: 3 })];
  const written = JSON.parse(JSON.stringify(formatAtlas(made)));
  assert.deepEqual(readAtlas(written), made);
  const refuses = (atlas: unknown, message: RegExp) =>
    assert.throws(() => readAtlas(atlas), (error) => error instanceof UserError && message.test(error.message));
  for (const atlas of [undefined, 1, [], {}, { ...written, schema: 2 }, { ...written, rows: "" }]) {
    refuses(atlas, /^An atlas is an object with "schema": 1/);
  }
  const broken = (row: string) => ({ ...written, rows: [row] });
  for (
    const row of ["", "4 8 2 0.5 0.2", "4 8 2 0.5 x 9; 0 - 1 1", "4 8 2 0.5 0.2 9; 99 - 1 1", "4 8 2 0.5 0.2 9; 0 - 1"]
  ) {
    refuses(broken(row), /^".*" is no row of an atlas; a row has devices/);
  }
  refuses(broken("4 8 2 0.5 0.2 9; 0 sometimes 1 1"), /^Unknown policy "sometimes"/);
});

test("a point or a cap that is none is refused by its name", () => {
  assert.throws(() => atlasRow({ ...point, devices: 0 }), /^UserError: atlasRow: devices/);
  assert.throws(() => atlasRow({ ...point, weight: 0 }), /^UserError: atlasRow: weight/);
  assert.throws(() => atlasRow({ ...point, message: -1 }), /^UserError: atlasRow: message/);
  assert.throws(() => atlasRanking(atlasRow(point), 0), /^UserError: atlasRanking: cap/);
});

test("tables and maps show the first of the ranking: its name or colour, its gain, and how far it is ahead", () => {
  const shown = rows().filter(({ devices, microbatches }) => devices === 4 && microbatches <= 8), [row] = shown;
  const [first, second] = atlasRanking(row, 2);
  const [, line] = atlasTable([row]).rows; // within twice the peak
  assert.equal(line[8], (row.plain / first.makespan).toFixed(3));
  assert.equal(line[10], `${(100 * (second.makespan / first.makespan - 1)).toFixed(1)} %`);
  const wins = atlasWinsTable(shown).rows.map((cells) => Number(String(cells[1]).split(" ")[0]));
  assert.ok(wins.reduce((sum, count) => sum + count, 0) >= shown.length);

  const { data } = atlasFigure(shown, { cap: 2, forward: 1 });
  const cells = data.filter(({ xaxis }) => xaxis === "x") as {
    name: string;
    x: string[];
    base: number[];
    text: string[];
  }[];
  const found = cells.flatMap(({ name, x, base, text }) =>
    x.map((size, at) => [size, Math.floor(base[at]), name, text[at]])
  );
  assert.equal(found.length, 6); // two sizes, three weights
  for (const [size, line, name, text] of found) {
    const here = shown.find((each) =>
      each.microbatches === Number(size) && each.weight === [0.5, 1, 2][Number(line)] && each.forward === 1 &&
      each.message === 0
    )!;
    const [best] = atlasRanking(here, 2);
    assert.deepEqual([name, text], [best.schedule, (here.plain / best.makespan).toFixed(2)]);
  }
  assert.deepEqual(Object.keys(scheduleColours).sort(), [...names].sort());
});
