/** Throughput as the 2BP paper measures it, against the steps that it is made of. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { sourceFor } from "../../bench/data.ts";
import { openDevices } from "../../lib/gpu/devices.ts";
import { measureEpochs } from "../../lib/measure/paper/epoch.ts";
import { type Measurement, startMeasurement } from "../../lib/measure/measurement.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { schedulePair } from "../../lib/schedules/transforms/pair.ts";
import { sgd } from "../../lib/train/optimizers.ts";

for (const mode of ["real", "virtual"] as const) {
  test(`an epoch on ${mode} devices is as long as its steps, of which the first does not count, schedule after schedule`, async () => {
    const set = await openDevices(2, { virtual: mode === "virtual" });
    const model = createModel("llama-tiny"), { source } = sourceFor(model, undefined, 1);
    const pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 1e-3 }) });
    const pairs = ["naive", "1f1b-1"].map((name) => schedulePair(name, { devices: 2 }));
    const measurement = startMeasurement(set, pipeline, { pairs, source, samples: 2 });
    await measurement.open(0);
    const taken: { pair: number; twoStage: boolean; ms: number }[] = [];
    const watched: Measurement = {
      ...measurement,
      async step(pair, twoStage) {
        const sample = await measurement.step(pair, twoStage);
        taken.push({ pair, twoStage, ms: sample.ms });
        return sample;
      },
    };
    const epochs = await measureEpochs(watched, { pairs, samples: 2, steps: 3, mode: set.mode });
    assert.deepEqual(
      epochs.map(({ schedule, twoStage, steps, samples }) => [schedule, twoStage, steps, samples]),
      [["naive", false, 3, 6], ["naive", true, 3, 6], ["1f1b-1", false, 3, 12], ["1f1b-1", true, 3, 12]],
    );
    assert.equal(taken.length, 4 * 4);
    for (const [at, { ms, samples, samplesPerSecond, twoStage }] of epochs.entries()) {
      const [, ...counted] = taken.slice(4 * at, 4 * at + 4);
      assert.ok(counted.every((step) => step.twoStage === twoStage && step.pair === Math.floor(at / 2)));
      const sum = counted.reduce((sum, step) => sum + step.ms, 0);
      if (mode === "virtual") assert.ok(Math.abs(ms - sum) < 1e-6, `${ms}, of steps ${sum}`);
      else assert.ok(ms >= sum, `${ms}, of steps ${sum}`); // batches and host come on top
      assert.ok(Math.abs(samplesPerSecond - samples / ms * 1000) < 1e-9 * samplesPerSecond);
    }
    await measurement.round(); // the report knows of this round alone
    const { rows, gains } = measurement.report();
    assert.ok(rows.every(({ stepMs }) => stepMs.min === stepMs.max) && gains.every(({ pairs }) => pairs === 1));
    measurement.close();
    pipeline.close();
    set.close();
  });
}
