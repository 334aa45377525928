/** Plans with replicas: what they hold against steps on shapes of all replicas, what they take against the simulator. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { predictMemory } from "../../lib/measure/memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import type { PlanOptions } from "../../lib/planning/options.ts";
import { plan } from "../../lib/planning/plan.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { adamw } from "../../lib/train/optimizers.ts";

const model = createModel("llama-tiny"), mib = 2 ** 20;
const link = { latency: 1e-6, bandwidth: 1e9 };
const network = { inside: link, between: { latency: 1e-5, bandwidth: 1e8 }, operations: 1e10 };

test("a plan with replicas is for no less than a step on shapes of all of them holds, and for 8 % more at most, with a whole and with a sharded optimizer, in one process and in several", async () => {
  for (
    const [replicas, shardOptimizer, apart, budget] of [
      ...[[2, false, false, 14], [5, false, false, 14], [5, true, false, 14]] as const,
      ...[[2, true, true, 16], [5, false, true, 16]] as const,
    ]
  ) {
    const options = { devices: 2 * replicas, microbatches: 4 * replicas, replicas, shardOptimizer, apart, network };
    const { schedule, parts, recompute, sums, peak, ...rest } = await plan(model, { ...options, budget: budget * mib });
    assert.deepEqual([sizesOf(schedule).devices, sizesOf(schedule).microbatches, rest.replicas], [2, 4, replicas]);
    const how = { optimizer: adamw(), parts, recompute, sums, replicas, shardOptimizer, apart };
    const needed = (await predictMemory(model, schedule, 1, how)).map((each) => each.needed);
    for (const [peer, bytes] of needed.entries()) {
      const planned = peak[peer % 2];
      assert.ok(
        bytes <= planned && planned <= budget * mib,
        `peer ${peer} of ${replicas}: ${bytes}, planned ${planned}`,
      );
      // The last replica's piece of a sharded optimizer is the largest.
      if (peer >= 2 * replicas - 2) assert.ok(planned <= 1.08 * bytes, `${bytes}, planned ${planned}`);
    }
    assert.ok(rest.plain > rest.makespan);
  }
});

test("auto finds the number of replicas whose step is shortest, and hosts whose neighbours make it shorter", async () => {
  const options = { devices: 4, microbatches: 8, budget: 64 * mib, network, hosts: 2 };
  const each = await Promise.all([1, 2, 4].map((replicas) => plan(model, { ...options, replicas })));
  const found = await plan(model, { ...options, replicas: "auto" });
  assert.equal(found.makespan, Math.min(...each.map(({ makespan }) => makespan)));
  assert.ok(each[1].neighbours === "ranks" || each[1].neighbours === "replicas");
  assert.ok(each[1].exposedSums >= 0);
});

test("what a plan with replicas lacks is said in one line", async () => {
  const good: PlanOptions = { devices: 4, microbatches: 8, budget: Infinity, replicas: 2, network };
  for (
    const [change, message] of [
      [{ network: undefined }, /^plan: nothing says what sums over replicas take; give `network`/],
      [
        { network: undefined, replicas: 1, hosts: 2 },
        /^plan: nothing says what messages between hosts take; give `network`/,
      ],
      [{ devices: 5 }, /^plan: 2 replicas cannot have equal shares of 5 devices; take a number that divides it$/],
      [{ microbatches: 7 }, /^plan: 2 replicas cannot have equal shares of 7 microbatches/],
      [
        { replicas: 1, shardOptimizer: true },
        /^plan: `shardOptimizer` is over replicas, and there is one: set `replicas`$/,
      ],
      [{ replicas: 0 }, /^plan: replicas must be a whole number, 1 or more, or "auto", not 0$/],
      [
        { network: { inside: link, operations: 0 } },
        /^plan: network.operations must be a finite number, above 0, not 0$/,
      ],
    ] as [Partial<PlanOptions>, RegExp][]
  ) {
    await assert.rejects(plan(model, { ...good, ...change }), { name: "UserError", message });
  }
});
