import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DeviceError } from "../../lib/gpu/device_error.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { measureThroughput } from "../../lib/measure/throughput.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { soFarTable, throughputNotes, throughputTable } from "../../lib/report/throughput.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { fromCsv, toCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { pairOf, schedulePair } from "../../lib/schedules/transforms/pair.ts";
import { textSource } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2, { virtual: true });
});
after(() => set.close());

const model = createModel("llama-tiny");
const optimizer = adamw();
const make = (placement: readonly number[]) => createPipeline(set, model, { optimizer, placement });
const source = () => textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
const file = fromCsv(toCsv(generate("interleaved-1f1b", { devices: 2 })), { name: "file" });
const pairs = [schedulePair("zb-v", { devices: 2 }), schedulePair("naive", { devices: 2 }), pairOf(file)];

test("schedules of several placements take turns, each on a pipeline of its own, and peaks are of it alone", async () => {
  const held = set.devices.map(({ ledger }) => ledger.total());
  const order: string[] = [];
  const watched = (placement: readonly number[]) => {
    const pipeline = make(placement);
    const { step } = pipeline;
    return Object.assign(pipeline, {
      step: (...args: Parameters<typeof step>) => {
        order.push(args[0].name);
        return step(...args);
      },
    });
  };
  const soFar: string[] = [];
  const report = await measureThroughput(set, watched, {
    ...{ pairs, source: source(), samples: 1, repeats: 2 },
    onRound: (round, so) =>
      soFar.push(`${round}: ${soFarTable(so()).rows.map(([name]) => name)}, ${so().gains[0].pairs}`),
  });
  assert.deepEqual(soFar, ["1: zb-v,naive,file, 1", "2: zb-v,naive,file, 2"]);
  const round = pairs.flatMap(({ base, split }) => [base.name, split.name]);
  assert.deepEqual(order, [...round, ...round, ...round]);
  assert.equal(report.apart, undefined);
  assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), held, "the pipelines are closed");
  assert.deepEqual(report.rows.map(({ schedule, twoStage, joined }) => [schedule, twoStage, joined]), [
    ["zb-v", false, true],
    ["zb-v", true, undefined],
    ["naive", false, undefined],
    ["naive", true, undefined],
    ["file", false, undefined],
    ["file", true, undefined],
  ]);
  const schedules = pairs.flatMap(({ base, split }) => [base, split]);
  const { software, subgroupSize } = set.devices[0].gpu.info;
  for (const [index, { peakBytes, stepMs, microbatches, bubbleRatio }] of report.rows.entries()) {
    assert.equal(microbatches, sizesOf(schedules[index]).microbatches);
    assert.ok(stepMs.min > 0 && bubbleRatio > 0 && bubbleRatio < 1);
    const predicted = await predictMemory(model, schedules[index], 1, { optimizer, software, subgroupSize });
    for (const [rank, { total }] of predicted.entries()) {
      assert.ok(
        Math.abs(peakBytes[rank] / total - 1) < 0.02,
        `${schedules[index].name}: ${peakBytes[rank]}, not ${total}`,
      );
    }
  }
  assert.deepEqual(report.gains.map(({ schedule }) => schedule), ["zb-v", "naive", "file"]);
  for (const gain of report.gains) {
    assert.ok(Math.abs(gain.bubbleGain * gain.batchingGain * gain.rest - gain.gain) < 1e-9);
  }
  assert.deepEqual(report.costs["zb-v"].stages.length, 4);
  const table = throughputTable(report);
  assert.deepEqual(table.rows.map(([, how]) => how).slice(0, 3), ["no, I and W joined", "its own, width 1", "no"]);
  assert.match(throughputNotes(report)[1], /^zb-v is split by itself: without 2BP is the same order/);
});

test("a pipeline whose first step finds no memory beside another is closed, and gets its turn alone", async () => {
  const held = set.devices.map(({ ledger }) => ledger.total());
  let open = 0;
  const scarce = (placement: readonly number[]) => {
    const pipeline = make(placement);
    const { close, step } = pipeline;
    open++;
    return Object.assign(pipeline, {
      close: () => (open--, close()),
      step: (...args: Parameters<typeof step>) => {
        if (open > 1) return Promise.reject(new DeviceError(0, "activity", "out of memory"));
        return step(...args);
      },
    });
  };
  const options = { pairs: pairs.slice(0, 2), source: source(), samples: 1, repeats: 1 };
  const report = await measureThroughput(set, scarce, options);
  assert.deepEqual([report.apart, open], [[["zb-v"], ["naive"]], 0]);
  assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), held);
});

test("placements that do not fit into memory together are measured one after the other, and the report says so", async () => {
  let open = 0;
  const scarce = (placement: readonly number[]) => {
    if (open > 0) throw new Error("The model does not fit", { cause: new DeviceError(0, "activity", "out of memory") });
    open++;
    const pipeline = make(placement);
    const { close } = pipeline;
    return Object.assign(pipeline, { close: () => (open--, close()) });
  };
  const report = await measureThroughput(set, scarce, { pairs, source: source(), samples: 1, repeats: 1 });
  assert.equal(open, 0);
  assert.deepEqual(report.apart, [["zb-v"], ["naive"], ["file"]]);
  assert.deepEqual(report.gains.map(({ pairs }) => pairs), [1, 1, 1]);
  assert.ok(report.loss.first > report.loss.last);
  assert.match(throughputNotes(report).join("\n"), /not fit into memory together.*zb-v; then naive; then file\./);
  const broken = () => {
    throw new Error("of another kind");
  };
  await assert.rejects(
    measureThroughput(set, broken, { pairs, source: source(), samples: 1, repeats: 1 }),
    /of another kind/,
  );
});

test("a pair whose schedules are placed differently is refused before anything runs", async () => {
  const pair = { base: pairs[0].base, split: { ...pairs[0].split, placement: [0, 1, 0, 1] } };
  await assert.rejects(measureThroughput(set, make, { pairs: [pair], source: source(), samples: 1, repeats: 1 }), {
    name: "UserError",
    message: "The schedules of a pair must have their stages on the same ranks; zb-v has them on 0,1,1,0, " +
      "zb-v with 2BP on 0,1,0,1",
  });
});
