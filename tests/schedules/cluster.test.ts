import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Cluster,
  clusterCosts,
  clusterNetwork,
  generate,
  readCluster,
  simulate,
  stageCosts,
  twoStage,
  UserError,
  withHostOverhead,
  withReplicas,
} from "../../lib/schedules/mod.ts";

const stages = [{ f: 2, i: 0.5, w: 3, b: 3 }, { f: 2, i: 3, w: 2, b: 4 }, { f: 1, i: 2, w: 2, b: 5 }];

test("a cluster of equal ranks prices as stage costs with a transfer and a host do", () => {
  const cluster: Cluster = { ranks: 3, stages, comm: 0.25, hosts: [0.1, 0.1, 0.1] };
  const costs = withHostOverhead(stageCosts(stages, 0.25), 0.1);
  for (const name of ["gpipe", "1f1b-1", "zb-h1"]) {
    const base = generate(name, { devices: 3 });
    for (const schedule of name === "zb-h1" ? [base] : [base, twoStage(base, { costs })]) {
      assert.equal(simulate(schedule, clusterCosts(cluster)).makespan, simulate(schedule, costs).makespan);
    }
  }
});

test("messages of a pair and a kind, hosts and tails of a rank count where they are", () => {
  const schedule = generate("1f1b-1", { devices: 2, microbatches: 1 });
  const one = { ranks: 2, stages: [{ f: 1, b: 2 }, { f: 3, b: 4 }] };
  const makespan = (more: Partial<Cluster>) => simulate(schedule, clusterCosts({ ...one, ...more })).makespan;
  assert.equal(makespan({}), 10);
  assert.equal(makespan({ comm: 1 }), 12);
  assert.equal(makespan({ messages: [{ from: 0, to: 1, time: 5 }] }), 15);
  assert.equal(makespan({ messages: [{ from: 0, to: 1, what: "I", time: 5 }] }), 10);
  assert.equal(makespan({ messages: [{ from: 1, to: 0, what: "I", time: 5 }], comm: 1 }), 16);
  assert.equal(makespan({ hosts: [0.5, null] }), 11);
  assert.equal(makespan({ tails: [3, 20] }), 28); // rank 1 ends at 8, and takes 20 more
});

test("the time of a W of a width that is not known lies on a line between those that are", () => {
  const costs = clusterCosts({ ranks: 1, stages: [{ w: { 2: 3, 4: 5 } }] });
  const time = (width: number) =>
    costs.duration({ kind: "W", stage: 0, microbatches: Array.from({ length: width }, (_, at) => at) }, 0, 0);
  assert.deepEqual([1, 2, 3, 4, 8].map(time), [1.5, 3, 4, 5, 10]);
});

test("a time that a cluster does not have is asked for by name", () => {
  const costs = clusterCosts({ ranks: 1, stages: [{ f: 1, b: 2 }, { w: 1 }] });
  const ask = (kind: "F" | "I" | "W" | "B", stage: number, rank = 0) => () =>
    costs.duration({ kind, stage, microbatches: [0] }, rank, 0);
  const remedy = "trace a run with 2BP, or add i: only a full backward is known";
  assert.throws(ask("I", 0), { message: `The cluster does not say what I takes on stage 0: ${remedy}` });
  assert.throws(ask("F", 1), { message: "The cluster does not say what F takes on stage 1: add it" });
  assert.throws(ask("B", 1), { message: "The cluster does not say what B takes on stage 1: add b, or i and w" });
  assert.throws(ask("F", 2), { message: "This cluster has 2 stages, and the schedule has a stage 2" });
  assert.throws(ask("F", 0, 1), { message: "This cluster has 1 ranks, and the schedule has a rank 1" });
});

test("what is wrong in a cluster file is said in a line, and what import adds is passed over", () => {
  const linked = { links: { inside: { latency: 0.5, bandwidth: 2 } } };
  const right = { schema: 1, ranks: 2, stages: [{ stage: 0, f: 1 }, { f: 1, w: { "2": 1 } }], steps: 3, machine: {} };
  assert.deepEqual(readCluster(right), { ranks: 2, stages: [{ f: 1 }, { f: 1, w: { 2: 1 } }] });
  const wrong: [object, RegExp][] = [
    [{ schema: undefined }, /has schema: 1, and this one undefined$/],
    [
      { rank: 2 },
      /^A cluster file has no "rank"; there are schema, ranks, stages, messages, comm, hosts, tails, links, bytes$/,
    ],
    [{ ranks: 0 }, /^ranks must be a whole number from 1 to 65536, not 0$/],
    [{ ranks: 3 }, /^stages: 3 ranks have 3 stages or more, and there are 2$/],
    [{ stages: {} }, /^stages must be a list, not an object$/],
    [{ stages: [{}, { stage: 0 }] }, /^stages\[1\] is of stage 0; give all stages, in their order$/],
    [{ stages: [{}, { f: -1 }] }, /^stages\[1\]\.f must be a time in milliseconds, 0 or more, not -1$/],
    [{ stages: [{ F: 1 }, {}] }, /^stages\[0\] has no "F"; there are stage, f, i, w, b, r$/],
    [{ stages: [{ w: {} }, {}] }, /^stages\[0\]\.w has no width$/],
    [{ stages: [{ w: { x: 1 } }, {}] }, /^stages\[0\]\.w: "x" is no number of micro-batches$/],
    [{ messages: [{ from: 0, to: 2, time: 1 }] }, /^messages\[0\]\.to must be a whole number from 0 to 1, not 2$/],
    [{ messages: [{ from: 1, to: 1, time: 1 }] }, /^messages\[0\] is from rank 1 to itself$/],
    [{ messages: [{ from: 0, to: 1, what: "B", time: 1 }] }, /^messages\[0\]\.what must be "F" or "I", not "B"$/],
    [
      { messages: [{ from: 0, to: 1 }] },
      /^messages\[0\]\.time must be a time in milliseconds, 0 or more, not undefined$/,
    ],
    [
      { messages: [{ from: 0, to: 1, time: 1 }, { from: 0, to: 1, what: "F", time: 2 }] },
      /^messages\[1\]: messages\[0\] is the same from rank 0 to rank 1$/,
    ],
    [{ comm: "1" }, /^comm must be a time/],
    [{ hosts: [1] }, /^hosts must be a list of 2, one for each rank, and has 1$/],
    [{ tails: [1, "x"] }, /^tails\[1\] must be a time/],
    [{ links: { inside: { latency: 0, bandwidth: 1 } } }, /^A cluster file with links needs bytes too$/],
    [{ bytes: { gradients: 1 } }, /^A cluster file with bytes needs links too$/],
    [
      { links: { inside: { latency: 0, bandwidth: 0 } }, bytes: {} },
      /^links\.inside\.bandwidth must be gigabytes in a second/,
    ],
    [{ links: { within: {} }, bytes: {} }, /^links has no "within"; there are inside, between$/],
    [
      { ...linked, bytes: { gradients: [1] } },
      /^bytes\.gradients must be one number, or a list of 2, one for each stage, and has 1$/,
    ],
    [
      { ...linked, bytes: { gradients: [1, -1] } },
      /^bytes\.gradients\[1\] must be a number of bytes, 0 or more, not -1$/,
    ],
    [{ ...linked, bytes: { gradients: 1, message: 8 }, comm: 1 }, /^bytes\.message and messages or comm both say/],
  ];
  for (const [change, message] of wrong) {
    assert.throws(() => readCluster({ ...right, ...change }), (error: Error) => {
      assert.ok(error instanceof UserError);
      assert.match(error.message, message);
      return true;
    });
  }
  for (const value of [null, 3, [], "x"]) assert.throws(() => readCluster(value), UserError);
});

test("links and bytes of a cluster are milliseconds and bytes, and say what messages take where they have a size", () => {
  const links = { inside: { latency: 0.5, bandwidth: 2 }, between: { latency: 1, bandwidth: 0.5 } };
  const file = { schema: 1, ranks: 2, stages: [{ f: 1, b: 2 }, { f: 1, b: 2 }], links };
  const cluster = readCluster({ ...file, bytes: { gradients: [4e6, 8e6], message: 3e6 } });
  const network = clusterNetwork(cluster)!;
  assert.deepEqual(network, {
    network: { inside: { latency: 0.5, bandwidth: 2e6 }, between: { latency: 1, bandwidth: 5e5 } },
    gradients: [4e6, 8e6],
    message: 3e6,
  });
  const costs = clusterCosts(cluster);
  assert.equal(costs.transfer!(0, 1, "F"), 0.5 + 1.5);
  // Two replicas on a host each: twice a latency and half of the bytes over half a gigabyte a second.
  const replicated = withReplicas(costs, [0, 1], { replicas: 2, hosts: 2, ...network });
  assert.deepEqual([0, 1].map((stage) => replicated.sum!(stage, stage)), [2 * (1 + 4), 2 * (1 + 8)]);
  const timed = readCluster({ ...file, bytes: { gradients: 1 }, comm: 7 });
  assert.equal(clusterCosts(timed).transfer!(0, 1, "F"), 7);
  assert.equal(clusterNetwork({ ranks: 1, stages: [{ f: 1 }] }), undefined);
});
