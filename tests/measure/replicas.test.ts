/** Times of pipelines with replicas: composed of those of the slowest with its sums, or read from steps of real devices. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { startMeasurement } from "../../lib/measure/measurement.ts";
import { measureStepCosts } from "../../lib/measure/step_costs.ts";
import { medianSums, sumsOfStep } from "../../lib/measure/sums.ts";
import { measureThroughput } from "../../lib/measure/throughput.ts";
import { throughputNotes } from "../../lib/report/throughput.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { randomBatch, tiny, tinyModel } from "../runtime/support.ts";

const optimizer = adamw();
const pairFor = (devices: number) => {
  const base = generate("1f1b-1", { devices, microbatches: 2 });
  return { base, split: twoStage(base, { policy: "fill" }) };
};
const drawn: number[] = [];
const source = {
  next(samples: number) {
    drawn.push(samples);
    return randomBatch(tiny, samples);
  },
};

async function withDevices(count: number, virtual: boolean, run: (set: DeviceSet) => Promise<void>): Promise<void> {
  const set = await openDevices(count, { virtual });
  try {
    await run(set);
  } finally {
    set.close();
  }
}

test("a virtual step of two replicas is that of the slower one, which then waits for the sum and, sharded, sends parameters", async () => {
  await withDevices(2, true, async (set) => {
    for (const shardOptimizer of [false, true]) {
      const pipeline = createPipeline(set, tinyModel(), { optimizer, replicas: 2, shardOptimizer });
      const asked: number[] = [];
      const exchange = (bytes: number) => {
        asked.push(bytes);
        return 300;
      };
      const pair = pairFor(1);
      const measurement = startMeasurement(set, pipeline, { pairs: [pair], source, samples: 1, exchange });
      await measurement.open(0);
      await measurement.round();
      const values = pipeline.parts[0].flatMap(({ parameters }) => parameters)
        .reduce((sum, { shape }) => sum + shape.reduce((product, side) => product * side, 1), 0);
      assert.deepEqual(asked, [Math.ceil(4 * values / 2)], "half of the gradients go to the other replica");
      for (const twoStaged of [false, true]) {
        const { ms, intervals, costs, schedule: { actions: [list] } } = await measurement.step(0, twoStaged);
        const lengths = intervals!.map((own) => own.map(({ start, end }) => end - start));
        assert.equal(lengths.length, 2);
        const first = costs!.duration(list[0], 0, 0);
        /** The step of a replica, if its host takes as long as that of the one whose costs these are. */
        const stepOf = (own: readonly number[], host: number) =>
          own.reduce((sum, time) => sum + time, list.length * host) + 600;
        const isSlower = lengths.map((own, at) => {
          const host = first - own[0];
          return host >= 0 && Math.abs(stepOf(own, host) - ms) < 1e-6 * ms &&
            stepOf(lengths[1 - at], host) <= ms + 1e-6;
        });
        assert.ok(isSlower.includes(true), `${ms} ms of ${JSON.stringify(lengths)}`);
        assert.deepEqual([costs!.sum!(0, 0), costs!.tail!(0) > 300], [shardOptimizer ? 300 : 600, shardOptimizer]);
      }
      measurement.close();
      pipeline.close();
    }
  });
});

test("four real devices are two replicas of two ranks: twice the samples, sums that were timed, and costs that know them", async () => {
  await withDevices(4, false, async (set) => {
    const pipeline = createPipeline(set, tinyModel(), { optimizer, replicas: 2 }), pair = pairFor(2);
    drawn.length = 0;
    const report = await measureThroughput(set, pipeline, { pairs: [pair], source, samples: 3, repeats: 2 });
    assert.ok(drawn.every((samples) => samples === 3 * 2 * 2), String(drawn));
    assert.deepEqual([report.devices, report.replicas], [4, 2]);
    for (const { peakBytes, samplesPerSecond, stepMs, microbatches } of report.rows) {
      assert.deepEqual([peakBytes.length, microbatches], [4, 2]);
      assert.ok(Math.abs(samplesPerSecond * stepMs.median / 1000 - 12) < 1e-9);
    }
    const { stages, sums } = report.costs["1f1b-1"];
    assert.equal(stages.length, 2);
    assert.ok(sums!.sum.length === 2 && sums!.sum.every((ms) => ms > 0 && ms < 10_000), JSON.stringify(sums));
    assert.ok(
      throughputNotes(report).includes(
        `2 replicas share each batch: samples/s are those of all, and the sum of a stage's gradients takes up to ${
          Math.max(...sums!.sum).toFixed(2)
        } ms.`,
      ),
    );
    const costs = await measureStepCosts(set, pipeline, pair.base, { source, samples: 1, repeats: 1 });
    for (const stage of [0, 1]) {
      assert.ok(costs.sum!(stage, stage) > 0 && costs.sum!(stage, stage) < 10_000);
      assert.ok(costs.duration({ kind: "I", stage, microbatches: [0] }, stage, 0) > 0);
    }
    await assert.rejects(measureThroughput(set, () => pipeline, { pairs: [pair], source, samples: 1, repeats: 1 }), {
      name: "UserError",
      message: "Schedule 1f1b-1 is for 2 stages on 2 ranks, and there are 4",
    });
    const made = { pairs: [pairFor(4)], source, samples: 1, repeats: 1 };
    await assert.rejects(measureThroughput(set, () => pipeline, made), {
      name: "UserError",
      message: "measureThroughput: the pipeline has 2 replicas; give `replicas` as many",
    });
    await assert.rejects(measureThroughput(set, () => pipeline, { ...made, replicas: 3 }), {
      name: "UserError",
      message: "measureThroughput: 4 devices cannot be 3 replicas of as many each",
    });
    pipeline.close();
  });
});

test("a sum takes as long as with the replica that began it last, for the others wait; of several steps the median counts", () => {
  const of = (begin: number, end: number) => [{ stage: 0, begin, end }];
  assert.deepEqual(sumsOfStep([of(1, 9), of(6, 9.5), []], 2), [3.5, NaN]);
  assert.deepEqual(medianSums([[1, NaN], [5, NaN], [2, NaN]]), [2, NaN]);
});
