/** A measurement that ends when it knows its gains: how often it is right about them, and what it does. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openDevices } from "../../lib/gpu/devices.ts";
import { medianInterval } from "../../lib/measure/bootstrap.ts";
import { measureThroughput } from "../../lib/measure/throughput.ts";
import { isLookedAt, isWithin } from "../../lib/measure/until.ts";
import { generator } from "../../lib/random.ts";
import { throughputNotes } from "../../lib/report/throughput.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { randomBatch, tiny, tinyModel } from "../runtime/support.ts";

test("it is looked at after 12 pairs, and each time after a third more", () => {
  const rounds = Array.from({ length: 100 }, (_, at) => at + 1);
  assert.deepEqual(rounds.filter(isLookedAt), [12, 16, 22, 30, 40, 54, 72, 96]);
});

test("of 200 measurements that end when 2 % is reached, at least 9 of 10 have the true median in their interval", () => {
  let held = 0;
  for (let run = 0; run < 200; run++) {
    const random = generator(`run ${run}`), ratios: number[] = [];
    do ratios.push(1.2 * Math.exp(0.04 * random.normal())); while (
      !(isLookedAt(ratios.length) && isWithin([ratios], 0.02))
    );
    const [low, high] = medianInterval(ratios)!;
    assert.ok((high - low) / 2 <= 0.02 * high);
    if (low <= 1.2 && 1.2 <= high) held++;
  }
  assert.ok(held >= 180, `${held} of 200`);
});

test("all gains count, and too few pairs or one that is NaN tell nothing", () => {
  const exact = new Array<number>(12).fill(1.1);
  assert.ok(isWithin([exact, exact], 0.01));
  assert.ok(!isWithin([exact, exact.map((value, at) => value + (at % 2) / 2)], 0.01));
  assert.ok(!isWithin([exact.slice(0, 5)], 0.4));
  assert.ok(!isWithin([[...exact, NaN]], 0.4));
});

test("measureThroughput() ends where gains are known well enough, or after the most pairs, and its notes say which", async () => {
  const set = await openDevices(2, { virtual: true });
  const pipeline = createPipeline(set, tinyModel(), { optimizer: adamw() });
  const base = generate("1f1b-1", { devices: 2 }), pairs = [{ base, split: twoStage(base) }];
  const source = { next: (samples: number) => randomBatch(tiny, samples) };
  try {
    const measure = (within: number, repeats: number) =>
      measureThroughput(set, pipeline, { pairs, source, samples: 1, repeats, within });
    const known = await measure(0.9, 40), unknown = await measure(0.000001, 13);
    assert.deepEqual([known.gains[0].pairs, unknown.gains[0].pairs], [12, 13]);
    const said = [known, unknown].map((report) => throughputNotes(report).find((note) => note.startsWith("Measured")));
    assert.equal(said[0], "Measured until the 95 % interval of each gain reaches no further than 90 % to either side.");
    assert.match(
      said[1]!,
      /than 0\.0001 % to either side: with these pairs not reached for 1f1b-1; give more --repeats/,
    );
    for (const within of [0, 1, NaN, -0.1]) {
      await assert.rejects(measure(within, 3), {
        name: "UserError",
        message: `measureThroughput: within must be a number above 0 and below 1, not ${within}`,
      });
    }
  } finally {
    pipeline.close();
    set.close();
  }
});
