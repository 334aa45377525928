/** Runs of the 2BP paper's models on devices that compute nothing, and what happens where a device fails. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { sourceFor } from "../../../bench/data.ts";
import { DeviceError } from "../../../lib/gpu/device_error.ts";
import type { DeviceSet } from "../../../lib/gpu/devices.ts";
import { dryDevices } from "../../../lib/gpu/dry.ts";
import { measurePaper } from "../../../lib/measure/paper/measure.ts";
import type { PaperOptions } from "../../../lib/measure/paper/options.ts";
import { paperRunOf, paperRuns, paperSamples } from "../../../lib/measure/paper/runs.ts";
import { scalePaper } from "../../../lib/measure/paper/scaling.ts";
import { closedForm } from "../../../lib/measure/scaling.ts";
import type { ThroughputReport } from "../../../lib/measure/throughput_report.ts";
import type { Model } from "../../../lib/models/model.ts";
import { createModel, modelNames } from "../../../lib/models/registry.ts";
import { paperSizeNotes } from "../../../lib/report/paper.ts";
import { generate } from "../../../lib/schedules/generators/generate.ts";

let open = 0;

/** Devices of GPUs that compute nothing, and are there at once. */
function openDry(count: number): Promise<DeviceSet> {
  const devices = dryDevices(count);
  open++;
  const close = () => {
    open--;
    devices.forEach((device) => device.close());
  };
  return Promise.resolve({ mode: "real", devices, adapter: "none", driver: "gpu", close });
}

const paper = "paper-transformer-16";
const sizes = ["paper-transformer-8th", "paper-transformer-tiny"];
const options: PaperOptions = {
  stall: 0.2,
  devices: 2,
  open: openDry,
  source: (model) => sourceFor(model, undefined, 1).source,
  schedules: ["naive", "1f1b-2"],
  policies: ["paper", "fill", "lean"],
  parts: ["throughput", "memory"],
  ranks: [2, 3],
  sizes,
  ms: 60_000,
  steps: 2,
  repeats: 1,
  seed: 1,
};

test("a run has an epoch and pairs of each schedule with the paper's samples, and the peaks of every policy", async () => {
  const report = await measurePaper(paper, options);
  assert.equal(open, 0);
  assert.deepEqual([report.model.name, report.size?.model], [sizes[0], sizes[0]]);
  assert.deepEqual(report.throughput!.map(({ samples, gains }) => [samples, gains.map(({ schedule }) => schedule)]), [
    [4, ["naive"]], // 4 in one micro-batch
    [2, ["1f1b-2"]], // 8 in 4
  ]);
  assert.deepEqual(report.epochs!.map(({ schedule, policy, samples }) => [schedule, policy, samples]), [
    ["naive", undefined, 8],
    ["naive", "paper", 8],
    ["1f1b-2", undefined, 16],
    ["1f1b-2", "paper", 16],
  ]);
  const rows = ["naive", "1f1b-2"].flatMap((name) =>
    [undefined, "paper", "fill", "lean"].map((policy) => [name, policy])
  );
  for (const peaks of [report.peaks!, report.paperPeaks!]) {
    assert.deepEqual(peaks.map(({ schedule, policy }) => [schedule, policy]), rows);
  }
  for (const { predicted, measured, schedule, policy } of report.peaks!) {
    assert.deepEqual(measured, predicted, `${schedule}, ${policy}`); // on devices that compute nothing they are one
  }
});

test("a size that a device fails with while it is measured gives way to the next smaller one, which says so", async () => {
  let sources = 0;
  const source = (model: Model) => {
    if (model.name === sizes[0] && sources++ > 0) throw new DeviceError(1, "F0", "out of memory");
    return options.source(model);
  };
  const report = await measurePaper(paper, { ...options, source, parts: ["memory", "throughput"] });
  assert.equal(open, 0);
  assert.equal(report.model.name, sizes[1]);
  const { tried } = report.size!;
  assert.deepEqual(tried.map(({ model, reason }) => [model, reason]), [[sizes[1], undefined], [sizes[0], "device"]]);
  assert.match(paperSizeNotes(report).join("\n"), /Not paper-transformer-8th: the device failed, out of memory\./);
  await assert.rejects(
    measurePaper(paper, { ...options, source, sizes: sizes.slice(0, 1) }),
    { name: "UserError", message: "paper-transformer-8th does not run on these devices: out of memory" },
  );
  assert.equal(open, 0);
});

test("scaling takes what has been measured already, and measures the other numbers of ranks", async () => {
  const report = await measurePaper(paper, { ...options, parts: ["throughput", "scaling"], repeats: 2 });
  const rows = report.scaling!.map((row) => [row.devices, row.mode, row.schedule, row.samples, row.pairs]);
  assert.deepEqual(rows, [
    [2, "real", "naive", 4, 2],
    [2, "real", "1f1b-2", 2, 2],
    [3, "real", "naive", 4, 2],
    [3, "real", "1f1b-2", 1, 2], // 8 samples in 6 micro-batches
  ]);
  const [{ gain, closedForm: theory }] = report.scaling!;
  assert.equal(gain, report.throughput![0].gains[0].gain);
  assert.ok(Math.abs(theory!.gain - 1.2) < 1e-9);
});

test("ranks without layers, memory or time for them are simulated from the costs of others, and it is told why", async () => {
  const costs = { stages: Array(4).fill({ f: 1, i: 1, b: 2, w: { 1: 1, 4: 4 } }), optimizer: [0, 0, 0, 0] };
  const gain = { schedule: "1f1b-1", gain: 1.3, spread: [1.2, 1.4], pairs: 5, predicted: 1.4 };
  const throughput = [{ devices: 4, mode: "virtual", samples: 1, gains: [gain], costs: { "1f1b-1": costs } }];
  const known = { devices: 4, rate: 1e9, throughput: throughput as unknown as ThroughputReport[] };
  const rowsOf = async (ranks: number[], others: Partial<PaperOptions>, about: Partial<typeof known> = {}) => {
    const rows = await scalePaper(sizes[1], { ...options, schedules: ["1f1b-1"], ranks, ...others }, {
      ...known,
      ...about,
    });
    return rows.map((row) => [row.devices, row.mode, row.reason, row.gain.toFixed(9)]);
  };
  const theory = (devices: number) => closedForm("1f1b-1", devices)!.gain.toFixed(9);
  const first = [4, "virtual", undefined, (1.3).toFixed(9)];
  assert.deepEqual(await rowsOf([4, 40], {}), [first, [40, "simulated", "layers", theory(40)]]);
  assert.deepEqual(await rowsOf([4, 8], { bytes: 1e6 }), [first, [8, "simulated", "memory", theory(8)]]);
  assert.deepEqual(await rowsOf([4, 8], {}, { rate: 1 }), [first, [8, "simulated", "time", theory(8)]]);
  assert.deepEqual((await rowsOf([4, 8], {}))[1].slice(0, 3), [8, "real", undefined]);
  assert.equal(open, 0);
});

test("without f16 a run is in f32 in place of mixed precision, and says so", async () => {
  const openPlain = async (count: number) => {
    const set = await openDry(count);
    for (const { gpu } of set.devices) Object.defineProperty(gpu, "info", { value: { ...gpu.info, f16: false } });
    return set;
  };
  const report = await measurePaper(paper, {
    ...options,
    open: openPlain,
    sizes: sizes.slice(1),
    parts: ["throughput"],
  });
  assert.deepEqual([report.precision, report.paperPrecision], ["f32", "mixed"]);
  assert.ok(report.throughput!.every(({ precision }) => precision === "f32"));
  assert.deepEqual(paperSizeNotes(report), ["The device has no f16: f32 in place of mixed precision."]);
  const half = await measurePaper(paper, { ...options, sizes: sizes.slice(1), parts: ["throughput"] });
  assert.deepEqual([half.precision, paperSizeNotes(half)], ["mixed", []]);
});

test("options that are none are refused in one line before anything is opened", async () => {
  const cases: [Partial<PaperOptions>, RegExp][] = [
    [{ schedules: ["zb-v"] }, /^measurePaper: schedules must be a list of one or more, each one of "naive", /],
    [{ parts: [] }, /^measurePaper: parts must be a list of one or more, each one of "throughput", /],
    [{ ranks: [1] }, /^measurePaper: ranks must be a list of one or more, each a whole number, 2 or more, not \[1\]$/],
    [{ ms: 0 }, /^measurePaper: ms must be a finite number, above 0, not 0$/],
    [{ bytes: -1 }, /^measurePaper: bytes must be a number of bytes above 0, /],
    [{ steps: 0 }, /^measurePaper: steps must be a whole number, 1 or more, not 0$/],
  ];
  const opened = () => assert.fail("opened");
  for (const [wrong, message] of cases) {
    const given = { ...options, open: opened, ...wrong };
    await assert.rejects(measurePaper(paper, given), { name: "UserError", message });
  }
  await assert.rejects(measurePaper("resnet-152", { ...options, open: opened }), {
    name: "UserError",
    message: /^"resnet-152" is no model of the 2BP paper; these are paper-transformer, /,
  });
});

test("every model of the paper's shapes is one of a run, whose sizes go down by at least a half from one to the next", () => {
  const names = new Set(paperRuns.flatMap(({ model, smaller }) => [model, ...smaller]));
  assert.deepEqual([...names].sort(), modelNames.filter((name) => name.startsWith("paper-")).sort());
  for (const { model, smaller } of paperRuns) {
    const widths = [model, ...smaller].map((name) => createModel(name).configuration.width);
    const blocks = [model, ...smaller].map((name) => createModel(name).configuration.blocks);
    for (let at = 1; at < widths.length; at++) {
      assert.ok(widths[at] * blocks[at] <= widths[at - 1] * blocks[at - 1] / 2, `${model}: ${widths}`);
    }
  }
  assert.equal(paperRunOf("paper-transformer-tiny").model, "paper-transformer-16");
});

test("where a step has fewer samples than micro-batches each has one", () => {
  const run = paperRunOf("paper-transformer-16"); // 4 samples, and 8 for 1F1B-2
  const samples = (schedule: string, devices: number) => paperSamples(run, generate(schedule, { devices }));
  assert.deepEqual([samples("naive", 8), samples("1f1b-1", 4), samples("1f1b-1", 8), samples("1f1b-2", 8)], [
    4,
    1,
    1,
    1,
  ]);
});
