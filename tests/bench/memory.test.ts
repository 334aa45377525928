/** `bench memory --replicas`: peaks of every rank of every replica, as predicted. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { openDevices } from "../../lib/gpu/devices.ts";
import type { MemoryReport } from "../../lib/measure/memory.ts";
import { program } from "../spawn.ts";

const { run: bench, close } = program("bench/main.ts");
after(close);
const base = ["memory", "--schedules", "1f1b-1", "--policies", "fill", "--samples", "1"];

async function report(...flags: readonly string[]): Promise<MemoryReport> {
  const { code, stdout, stderr } = await bench(...base, "--json", "-", ...flags);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

test("bench memory --replicas measures every rank of every replica within 1 % of the prediction, the optimizer sharded or not", async () => {
  const moments: number[] = [];
  for (const flags of [[], ["--shard-optimizer"]]) {
    const { devices, replicas, shardOptimizer, rows } = await report("--devices", "4", "--replicas", "2", ...flags);
    assert.deepEqual({ devices, replicas, shardOptimizer }, {
      devices: 4,
      replicas: 2,
      shardOptimizer: flags.length > 0,
    });
    assert.equal(rows.length, 2);
    for (const { devices } of rows) {
      assert.deepEqual(devices.map(({ replica, rank }) => [replica, rank]), [[0, 0], [0, 1], [1, 0], [1, 1]]);
      for (const { predicted, measured, predictedPeak, measuredPeak } of devices) {
        assert.ok(Math.abs(predictedPeak / measuredPeak! - 1) <= 0.01, `${predictedPeak} against ${measuredPeak}`);
        // When a staging buffer comes back depends on when the other side gets to it.
        assert.deepEqual({ ...measured, transfer: 0 }, { ...predicted, transfer: 0 });
        assert.ok(predicted.transfer >= predicted.gradients / 2, "sums over replicas are in it");
      }
    }
    moments.push(rows[0].devices.reduce((sum, { measured }) => sum + measured!.optimizer, 0));
  }
  const [whole, sharded] = moments;
  assert.ok(Math.abs(sharded / whole - 0.5) < 0.01, `${sharded} bytes of moments in place of ${whole}`);
});

test("bench memory --replicas predicts without a device, and counts the bytes of a repeated step", async () => {
  const { mode, devices, replicas, rows } = await report("--predict", "--devices", "6", "--replicas", "3");
  assert.deepEqual([mode, devices, replicas, rows[0].devices.length], ["predicted", 6, 3, 6]);
  const { code, stdout, stderr } = await bench(...base, "--replicas", "2", "--steps", "10", "--json", "-");
  assert.equal(code, 0, stderr);
  const growth = JSON.parse(stdout);
  assert.deepEqual([growth.devices, growth.replicas, growth.slopes.inUse], [4, 2, 0]);
});

test("bench memory refuses devices that replicas do not divide, and a sharded optimizer of one replica", async () => {
  for (
    const [flags, message] of [
      [["--devices", "3", "--replicas", "2"], /^bench: --devices 3 cannot be cut into 2 replicas of as many ranks/],
      [["--shard-optimizer"], /^bench: --shard-optimizer is about several replicas; add --replicas$/m],
    ] as const
  ) {
    const { code, stderr } = await bench(...base, ...flags);
    assert.equal(code, 2, stderr);
    assert.match(stderr, message);
  }
});

test("bench memory --predict is for the kind of device that --on names; a mistake is one line, exit code 2", async () => {
  const set = await openDevices(1);
  const { kind } = set.devices[0].gpu.info;
  set.close();
  const rowsOf = async (on: string) => {
    const { rows, kind: said } = await report("--predict", "--devices", "2", "--on", on);
    assert.equal(said, on === "here" ? kind : on);
    return rows;
  };
  const here = await rowsOf("here"), gpu = await rowsOf("gpu");
  assert.deepEqual(here, await rowsOf(kind));
  assert.deepEqual((await report("--predict", "--devices", "2")).rows, gpu);
  // A GPU keeps no scores, a processor does at 64 tokens.
  assert.ok(kind === "gpu" || here[0].devices[0].predictedPeak > 1.02 * gpu[0].devices[0].predictedPeak);
  for (
    const [flags, problem] of [[["--on", "gpu"], /--on goes with --predict/], [
      ["--on", "it"],
      /"it" is not one of/,
    ]] as const
  ) {
    const { code, stderr } = await bench(...base, ...flags);
    assert.equal(code, 2);
    assert.match(stderr, problem);
    assert.equal(stderr.trim().split("\n").length, 1);
  }
});
