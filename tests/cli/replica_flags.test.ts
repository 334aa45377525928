/** What the flags of replicas stand for. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { devicesOf, ranksOf, replicasGiven } from "../../lib/cli/replica_flags.ts";

const network = { latency: 1, bandwidth: 8, betweenLatency: NaN, betweenBandwidth: 2, message: NaN, gradients: 5 };

test("without replicas, hosts and network nothing changes; with hosts both places are tried, unless one is said", () => {
  assert.deepEqual(replicasGiven({}, undefined), []);
  const both = replicasGiven({ replicas: 4, hosts: 2, network }, undefined);
  assert.deepEqual(both.map(({ neighbours }) => neighbours), ["ranks", "replicas"]);
  assert.deepEqual(both[0], {
    replicas: 4,
    hosts: 2,
    neighbours: "ranks",
    network: { inside: { latency: 1, bandwidth: 8 }, between: { latency: 1, bandwidth: 2 } },
    gradients: 5,
  });
  const [one, ...none] = replicasGiven({ replicas: 4, hosts: 2, neighbours: "replicas", sum: "ring" }, undefined);
  assert.deepEqual([one.neighbours, one.way, one.network.inside, none], [
    "replicas",
    "ring",
    { latency: 0, bandwidth: 1 },
    [],
  ]);
  assert.equal(replicasGiven({ hosts: 2 }, undefined).length, 1, "one pipeline over hosts has one place");
  assert.equal(replicasGiven({ network: { ...network, message: 3 } }, undefined)[0].message, 3);
});

test("replicas of the usual number of ranks are no more devices than a command runs", () => {
  assert.deepEqual([devicesOf(2, { replicas: 32 }), devicesOf(100, {})], [64, 100]);
  assert.throws(() => devicesOf(2, { replicas: 64 }), {
    name: "UserError",
    message: "--replicas 64 of 2 ranks each are 128 devices; there may be 64: take fewer",
  });
});

test("what does not go together is refused in one line", () => {
  assert.deepEqual([ranksOf(8, { replicas: 2 }), ranksOf(undefined, { replicas: 2 }), ranksOf(3, {})], [
    4,
    undefined,
    3,
  ]);
  assert.throws(() => ranksOf(6, { replicas: 4 }), {
    name: "UserError",
    message: "--devices 6 cannot be cut into 4 replicas of as many ranks; take a number of devices that 4 divides",
  });
  for (const flags of [{ sum: "ring" as const }, { neighbours: "ranks" as const }, { shardOptimizer: true }]) {
    assert.throws(() => replicasGiven(flags, undefined), {
      name: "UserError",
      message: /is about several replicas; add --replicas$/,
    });
  }
  const cluster = { ranks: 2, stages: [{ f: 1 }, { f: 1 }] };
  assert.throws(() => replicasGiven({ replicas: 2 }, cluster), {
    name: "UserError",
    message: /add links and bytes to it$/,
  });
  assert.throws(() => replicasGiven({ replicas: 2, network }, cluster), {
    name: "UserError",
    message: /both say what links take/,
  });
});
