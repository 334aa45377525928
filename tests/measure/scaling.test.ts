import assert from "node:assert/strict";
import { test } from "node:test";
import { closedForm, joinRuns, type ScalingReport } from "../../lib/measure/scaling.ts";
import type { ThroughputReport } from "../../lib/measure/throughput_report.ts";
import { largestFitting } from "../../lib/measure/largest.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { scalingFigure, scalingGainTable, scalingNotes, scalingTable } from "../../lib/report/scaling.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";

const names = ["naive", "gpipe", "1f1b-1", "1f1b-2"];
const near = (found: number, wanted: number, what: string) =>
  assert.ok(Math.abs(found - wanted) < 1e-12, `${what}: ${found} is not ${wanted}`);

test("closedForm() is what the simulator makes of unit costs, for each schedule of the paper on 1 to 32 devices", () => {
  for (const name of names) {
    for (const devices of [1, 2, 3, 4, 8, 16, 32]) {
      const base = generate(name, { devices });
      const split = twoStage(base, { policy: name === "gpipe" ? "end" : "fill" });
      const theory = closedForm(name, devices)!;
      const [without, with_] = [simulate(base), simulate(split)];
      near(theory.without, without.bubbleRatio, `${name} on ${devices}, bubble`);
      near(theory.with, with_.bubbleRatio, `${name} on ${devices}, bubble with 2BP`);
      near(theory.gain, without.makespan / with_.makespan, `${name} on ${devices}, gain`);
    }
  }
  assert.equal(closedForm("zb-h1", 4), undefined);
  assert.equal(closedForm("toString", 4), undefined);
});

test("llama-deep can be cut into 16 stages of which none does more than twice the mean", () => {
  const model = createModel("llama-deep");
  let shape = model.inputShape(1);
  const work = partition(model, 16).map((layers) =>
    layers.reduce((sum, layer) => {
      const { f, i, w } = layer.flops(shape);
      shape = layer.outputShape(shape);
      return sum + f + i + w;
    }, 0)
  );
  const mean = work.reduce((sum, each) => sum + each, 0) / work.length;
  assert.ok(Math.max(...work) < 2 * mean, work.map((each) => (each / mean).toFixed(2)).join(" "));
});

function run(devices: number, mode: "real" | "virtual"): ThroughputReport {
  const row = {
    schedule: "naive",
    width: 1,
    microbatches: 1,
    recompute: "none",
    sums: "i",
    peakBytes: [1, 1],
    bubbleRatio: 0.5,
  };
  const stepMs = (median: number) => ({ median, min: median, max: median });
  return {
    schema: 1,
    mode,
    devices,
    adapter: "an adapter",
    model: { name: "m", parameters: 2e6, length: 64 },
    samples: 4,
    precision: "f32",
    rows: [
      { ...row, twoStage: false, stepMs: stepMs(12), samplesPerSecond: 400 },
      { ...row, twoStage: true, policy: "fill", stepMs: stepMs(10), samplesPerSecond: 480 },
    ],
    gains: [{
      schedule: "naive",
      gain: 1.2,
      spread: [1.1, 1.3],
      pairs: 3,
      predicted: 1.25,
      bubbleGain: 1.25,
      batchingGain: 1,
      rest: 0.96,
    }],
    unexplained: mode === "real" ? 0.01 : NaN,
    ...(mode === "virtual" ? { overheads: { hostMsPerAction: 0.5, messageMs: [0.25, 1.5], measured: true } } : {}),
    costs: {},
    loss: { first: 2, last: 1 },
  };
}

test("a scaling report, its tables and its figure say of each number which devices and which mode it is from", () => {
  const report: ScalingReport = joinRuns([run(2, "real"), run(4, "virtual")]);
  assert.deepEqual(report.rows.map(({ devices, mode, twoStage }) => [devices, mode, twoStage]), [
    [2, "real", false],
    [2, "real", true],
    [4, "virtual", false],
    [4, "virtual", true],
  ]);
  const [two, four] = scalingTable(report).rows;
  assert.deepEqual(two.slice(0, 7), [2, "real", "naive", "400.0", "480.0", "200.00", "240.00"]);
  assert.deepEqual(two.slice(7), ["50.0 %", "50.0 %", "50.0 %", "40.0 %"]);
  assert.deepEqual(four.slice(0, 3), [4, "virtual", "naive"]);
  assert.equal(scalingGainTable(report).rows[0].at(-1), "1.200");
  assert.match(
    scalingNotes(report).join("\n"),
    /2 real devices.*1\.0 %[^]*4 virtual devices.*0\.50 ms of host.*1\.50 ms/,
  );
  const [measured, theory, ...throughput] = scalingFigure(report).data;
  assert.deepEqual((measured.marker as { symbol: string[] }).symbol, ["circle", "circle-open"]);
  assert.deepEqual([measured.x, measured.y], [[2, 4], [1.2, 1.2]]);
  assert.deepEqual(theory.y, [1.2, 12 / 9]);
  assert.deepEqual(throughput.map(({ y }) => y), [[200, 100], [240, 120]]);
});

test("largestFitting() takes the first model whose predicted bytes there are, by device or in all", async () => {
  const schedules = [generate("1f1b-1", { devices: 2 })];
  const options = { schedules, samples: 2, optimizer: adamw(), software: true };
  const peaks = await predictMemory(createModel("llama-small"), schedules[0], 2, options);
  const sum = peaks.reduce((total, peak) => total + peak.total, 0), most = Math.max(...peaks.map(({ total }) => total));
  const models = ["llama-160m", "llama-small", "llama-tiny"];
  const chosen = async (bytes: number, shared: boolean) => {
    const { fits, tried } = await largestFitting({ ...options, models, bytes, shared });
    return fits ? tried.at(-1) : undefined;
  };
  assert.deepEqual(await chosen(sum, true), { model: "llama-small", bytes: sum });
  assert.equal((await chosen(sum - 1, true))?.model, "llama-tiny");
  assert.deepEqual(await chosen(most, false), { model: "llama-small", bytes: most });
  assert.equal((await chosen(most - 1, false))?.model, "llama-tiny");
  assert.equal(await chosen(1000, true), undefined);
});
