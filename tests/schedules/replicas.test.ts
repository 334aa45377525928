/** What replicas add to costs: sums against messages played one by one, places on hosts, refusals. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { unitCosts } from "../../lib/schedules/price/costs.ts";
import { hostOf, neighbours, type ReplicaOptions, sumWays, withReplicas } from "../../lib/schedules/price/replicas.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { playSum } from "../reference/all_reduce.ts";

const network = { inside: { latency: 0.5, bandwidth: 40 }, between: { latency: 2, bandwidth: 5 } };
const timeOn = ({ latency, bandwidth }: { latency: number; bandwidth: number }) => (bytes: number) =>
  latency + bytes / bandwidth;
const near = (a: number, b: number, what: string) =>
  assert.ok(Math.abs(a - b) < 1e-9 * (1 + b), `${what}: ${a}, not ${b}`);

test("a sum takes what its messages take one by one, whatever the way and the hosts, and all get all of it", () => {
  let count = 0;
  for (const way of sumWays) {
    for (
      const [ranks, replicas, hosts] of [[1, 2, 1], [1, 4, 2], [2, 4, 4], [2, 6, 3], [3, 8, 4], [4, 5, 10], [2, 3, 2]]
    ) {
      for (const side of neighbours) {
        const options: ReplicaOptions = { replicas, hosts, neighbours: side, network, gradients: 120, way };
        const placement = Array.from({ length: ranks }, (_, rank) => rank);
        for (const rank of placement) {
          const on = Array.from({ length: replicas }, (_, replica) => hostOf(options, ranks, replica, rank));
          const groups = [...new Set(on)].map((host) => on.filter((each) => each === host).length);
          if (way === "hierarchical" && new Set(groups).size > 1) continue;
          const played = playSum(
            way,
            { hosts: on, inside: timeOn(network.inside), between: timeOn(network.between) },
            120,
          );
          assert.ok(played.isWhole, way);
          let costs;
          try {
            costs = withReplicas(unitCosts(), placement, options);
          } catch (error) {
            assert.match((error as Error).message, /^A hierarchical sum needs/);
            continue; // of another rank
          }
          near(costs.sum!(rank, rank), played.time, `${way} of ${on}`);
          count++;
        }
      }
    }
  }
  assert.ok(count > 80, `${count}`);
});

test("hosts hold as many devices each, neighbours of one kind or the other together", () => {
  const at = (side: "ranks" | "replicas") =>
    [0, 1].map((replica) =>
      [0, 1, 2, 3].map((rank) => hostOf({ replicas: 2, hosts: 4, neighbours: side }, 4, replica, rank))
    );
  assert.deepEqual(at("ranks"), [[0, 0, 1, 1], [2, 2, 3, 3]]);
  assert.deepEqual(at("replicas"), [[0, 1, 2, 3], [0, 1, 2, 3]]);
});

test("messages take the link between hosts where those of any replica do, and what the costs say without a size", () => {
  const placement = [0, 1, 2, 3], options = { replicas: 2, network, gradients: 1, message: 10 };
  const times = (more: Partial<ReplicaOptions>) => {
    const costs = withReplicas(unitCosts({ comm: 7 }), placement, { ...options, ...more });
    return [0, 1, 2].map((rank) => costs.transfer!(rank, rank + 1, "F"));
  };
  assert.deepEqual(times({ hosts: 4 }), [0.75, 4, 0.75]);
  assert.deepEqual(times({ hosts: 4, neighbours: "replicas" }), [4, 4, 4]);
  assert.deepEqual(times({}), [0.75, 0.75, 0.75]);
  assert.deepEqual(times({ message: undefined }), [7, 7, 7]);
  // Three ranks on hosts of two: replica 0 crosses between ranks 1 and 2, replica 1 between ranks 0 and 1.
  const odd = withReplicas(unitCosts(), [0, 1, 2], { ...options, hosts: 3 });
  assert.deepEqual([odd.transfer!(0, 1, "F"), odd.transfer!(1, 2, "I")], [4, 4]);
});

test("a sharded optimizer sums to pieces, updates a part, and sends the parameters in its tail", () => {
  const placement = [0, 1, 1, 0], gradients = [40, 80, 120, 160];
  const base = { ...unitCosts(), tail: (rank: number) => 6 + 2 * rank };
  const all = withReplicas(base, placement, { replicas: 2, network, gradients });
  const sharded = withReplicas(base, placement, { replicas: 2, network, gradients, shardOptimizer: true });
  for (const [stage, rank] of placement.entries()) {
    near(2 * sharded.sum!(stage, rank), all.sum!(stage, rank), `${stage}`);
  }
  assert.deepEqual([0, 1].map((rank) => all.tail!(rank)), [6, 8]);
  // Half the update, and 0.5 + bytes/2/40 for each stage.
  assert.deepEqual([0, 1].map((rank) => sharded.tail!(rank)), [3 + 1 + 200 / 80, 4 + 1 + 200 / 80]);
});

test("one replica sums nothing", () => {
  const base = generate("1f1b-1", { devices: 2 });
  const costs = withReplicas(unitCosts(), base.placement, { replicas: 1, network, gradients: 5 });
  assert.equal(costs.sum, undefined);
  assert.deepEqual(simulate(base, costs).sums, []);
});

test("what cannot be is refused in one line", () => {
  const good: ReplicaOptions = { replicas: 2, network, gradients: 1 };
  for (
    const [wrong, message] of [
      [{ replicas: 0 }, /replicas must be a whole number/],
      [
        { hosts: 3 },
        /^8 devices \(4 ranks in 2 replicas\) do not fill 3 hosts evenly; take a number of hosts that divides 8$/,
      ],
      [{ gradients: [1, 2] }, /^There are gradients of 2 stages, and 4 stages; give the same$/],
      [{ gradients: -1 }, /gradients must be bytes, 0 or more/],
      [{ message: NaN }, /^The size of a message must be a finite number/],
      [{ way: "star" }, /way must be/],
      [
        { way: "tree", shardOptimizer: true },
        /^A tree gives every replica all of a sum; with a sharded optimizer take direct/,
      ],
      [{ network: {} }, /network must be an object with inside/],
      [{ network: { inside: { latency: -1, bandwidth: 1 } } }, /^The latency inside a host must be/],
      [{ network: { inside: { latency: 0, bandwidth: 0 } } }, /^The bandwidth inside a host must be a number above 0/],
      [{ neighbour: "ranks" }, /there is no "neighbour"/],
    ] as [object, RegExp][]
  ) {
    assert.throws(() => withReplicas(unitCosts(), [0, 1, 2, 3], { ...good, ...wrong } as ReplicaOptions), {
      name: "UserError",
      message,
    });
  }
  const three = { ...good, replicas: 3, hosts: 2, way: "hierarchical" as const };
  assert.throws(() => withReplicas(unitCosts(), [0, 1], three), {
    name: "UserError",
    message: /^A hierarchical sum needs as many replicas on each host, and rank \d has \d, \d; take direct or ring$/,
  });
  withReplicas(unitCosts(), [0, 1, 2, 3], good);
});
