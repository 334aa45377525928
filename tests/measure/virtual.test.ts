import assert from "node:assert/strict";
import { test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { measureAgreement } from "../../lib/measure/agreement.ts";
import { hostPerAction, replayCosts, updatesAfter } from "../../lib/measure/costs.ts";
import { measureLinks, measureMessage } from "../../lib/measure/overheads.ts";
import type { ThroughputReport } from "../../lib/measure/throughput_report.ts";
import type { Measurement, StepSample } from "../../lib/measure/measurement.ts";
import { measureThroughput } from "../../lib/measure/throughput.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { textSource } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { follow } from "../reference/contention.ts";

async function withDevices(run: (set: DeviceSet) => Promise<void>): Promise<void> {
  const set = await openDevices(2, { virtual: true });
  try {
    await run(set);
  } finally {
    set.close();
  }
}

test("hostPerAction() shares the time in which no action ran; clocks that disagree give none", () => {
  const intervals = [[{ start: 0, end: 2 }, { start: 5, end: 6 }], [{ start: 2, end: 5 }]];
  assert.equal(hostPerAction(intervals, 9), 1);
  assert.equal(hostPerAction(intervals, 5.9), 0);
  assert.equal(hostPerAction([[], []], 3), 0);
});

test("measureMessage() finds a large message dearer than a small one, and leaves no memory behind", async () => {
  await withDevices(async ({ devices: [device] }) => {
    const before = device.ledger.total();
    const small = await measureMessage(device, 1024, 0), large = await measureMessage(device, 16 * 2 ** 20, 0);
    assert.ok(small > 0 && small < large, `${small} ms for 1 KiB, ${large} ms for 16 MiB`);
    assert.equal(device.ledger.total(), before);
  });
});

test("measureLinks() prices both directions between neighbours, and nothing else", async () => {
  await withDevices(async (set) => {
    const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
    const link = await measureLinks(set.devices[0], pipeline, generate("naive", { devices: 2 }), 2, [1, 2, 3]);
    pipeline.close();
    assert.ok(link(0, 1) > 0);
    assert.equal(link(0, 1), link(1, 0));
    assert.equal(link(0, 0), 0);
  });
});

test("updatesAfter() names the ranks of tied parameters", async () => {
  const set = await openDevices(3, { virtual: true });
  try {
    for (const [name, expected] of [["llama-tiny", [[], [], []]], ["bert-tiny", [[2], [], [0]]]] as const) {
      const pipeline = createPipeline(set, createModel(name), { optimizer: adamw() });
      assert.deepEqual(updatesAfter(pipeline, 3), expected);
      pipeline.close();
    }
  } finally {
    set.close();
  }
});

test("virtual steps hold messages and host: as measured by default, or as given", async () => {
  await withDevices(async (set) => {
    const base = generate("naive", { devices: 2 });
    const text = new TextEncoder().encode("to be or not to be, ".repeat(50));
    const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
    const options = {
      pairs: [{ base, split: twoStage(base) }],
      source: textSource(text, { length: 64, seed: 1 }),
      samples: 1,
      repeats: 2,
    };
    const measured = await measureThroughput(set, pipeline, options);
    assert.ok(measured.overheads!.measured && measured.overheads!.messageMs[0] > 0);
    assert.equal(measured.overheads!.messageMs.length, 1);
    const given = await measureThroughput(set, pipeline, { ...options, transfer: () => 500 });
    assert.deepEqual([given.overheads!.messageMs, given.overheads!.measured], [[500], false]);
    // One activation there and one gradient back, all on the critical path.
    for (const { stepMs } of given.rows) assert.ok(stepMs.min > 1000 && stepMs.median < 2000, `${stepMs.median} ms`);
    pipeline.close();
  });
});

/** A measurement of schedules of one placement. */
const alone = {
  placements: 1,
  open: () => Promise.resolve(),
  step: () => assert.fail("a step of no round"),
  close: () => {},
  isCrowded: () => Promise.resolve(false),
};

test("measureAgreement() compares steps of the same round, and takes turns at going first", async () => {
  const order: string[] = [];
  const schedule = generate("naive", { devices: 2 });
  const fake = (name: string, times: readonly [number, number][]): Measurement => {
    let next = 0;
    return {
      ...alone,
      open: () => Promise.resolve(void order.push(name)),
      round() {
        order.push(name);
        const [without, split] = times[next++];
        return Promise.resolve([{ pair: 0, steps: [{ schedule, ms: without }, { schedule, ms: split }] }]);
      },
      report: () => ({ devices: 2, gains: [{ schedule: "naive" }] } as unknown as ThroughputReport),
    };
  };
  const real = fake("r", [[100, 80], [200, 160], [50, 40]]);
  const virtual = fake("v", [[90, 80], [180, 144], [50, 50]]);
  const { rows: [row], contention } = await measureAgreement(real, virtual, 3);
  assert.equal(order.join(""), "rvvrrvvr");
  assert.equal(row.step[0].ratio, 0.9);
  assert.equal(row.step[1].ratio, 1);
  assert.equal(row.gain.ratio, 0.9);
  assert.equal(contention, 1); // nothing is known of it without device times
  order.length = 0;
  assert.equal(await measureAgreement(fake("r", [[1, 1], [1, 1], [1, 1]]), undefined, 3), undefined);
  assert.equal(order.join(""), "rrrr", "a process without the virtual devices takes the same steps of the real ones");
});

test("measureAgreement() finds by how much devices slow each other, and composes virtual steps with it", async () => {
  const base = generate("1f1b-1", { devices: 2 });
  const pair = [base, twoStage(base)];
  const fake = (lost: number): Measurement => ({
    ...alone,
    round: () => {
      const samples = pair.map((schedule): StepSample => {
        const spans = follow(schedule, (rank, index) => 10 + rank + index, lost);
        const ms = Math.max(...spans.flat().map(({ end }) => end));
        return { schedule, ms, intervals: spans, costs: replayCosts(schedule, spans) };
      });
      return Promise.resolve([{ pair: 0, steps: [samples[0], samples[1]] as const }]);
    },
    report: () => ({ devices: 2, gains: [{ schedule: "1f1b-1" }] } as unknown as ThroughputReport),
  });
  const { rows: [row], contention } = await measureAgreement(fake(1 - 1 / 1.08), fake(0), 2);
  assert.ok(Math.abs(contention - 1.08) < 1e-6, `${contention}`);
  for (const { ratio } of [...row.step, row.gain]) assert.ok(Math.abs(ratio - 1) < 1e-4, `${ratio}`);
  assert.ok(row.uncontended.step[1].ratio < 0.96, `${row.uncontended.step[1].ratio}`);
});
