import assert from "node:assert/strict";
import { test } from "node:test";
import { parseBytes } from "../../lib/bytes.ts";
import { unitCosts } from "../../lib/schedules/price/costs.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { parsePolicy } from "../../lib/schedules/transforms/policy.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { validate } from "../../lib/schedules/check/validate.ts";

const memory = () => ({ activations: 1, released: 0.4, derivatives: 0.5, workspace: { W: 0.1, I: 0.2 } });

test("policy lean is as short as fill and holds no more on any rank, for any ratio of costs", () => {
  for (const [f, i, w] of [[1, 1, 1], [1, 1.2, 0.8], [2, 2, 1], [1, 1, 2], [3, 4, 3]]) {
    const costs = unitCosts({ f, i, w, comm: 0.1 });
    for (let devices = 2; devices <= 8; devices++) {
      for (const microbatches of [devices, 2 * devices]) {
        const base = generate("1f1b", { devices, microbatches });
        const fill = twoStage(base, { costs });
        const lean = twoStage(base, { policy: "lean", costs, memory });
        const what = `${devices} devices, ${microbatches} micro-batches, f:i:w ${f}:${i}:${w}`;
        validate(lean);
        const [time, limit] = [simulate(lean, costs).makespan, simulate(fill, costs).makespan];
        assert.ok(time <= limit * (1 + 1e-9), `${what}: ${time}, with fill ${limit}`);
        const most = peakMemory(fill, memory);
        peakMemory(lean, memory).forEach((peak, rank) =>
          assert.ok(peak <= most[rank] * (1 + 1e-9), `${what}, rank ${rank}: ${peak}, with fill ${most[rank]}`)
        );
      }
    }
  }
});

test("policy lean halves what fill holds with twice as many micro-batches as devices", () => {
  const base = generate("1f1b-2", { devices: 4 });
  const most = (policy: "fill" | "lean") => Math.max(...peakMemory(twoStage(base, { policy, memory }), memory));
  assert.ok(most("lean") < 0.6 * most("fill"), `${most("lean")} of ${most("fill")}`);
});

test("parseBytes() reads powers of 1000 and of 1024, and policies may hold them", () => {
  const sizes = {
    "1e9": 1e9,
    "512MB": 512e6,
    "64MiB": 64 * 2 ** 20,
    "1.5GiB": 1.5 * 2 ** 30,
    "7": 7,
    "3kB": 3000,
    "9B": 9,
  };
  for (const [text, bytes] of Object.entries(sizes)) {
    assert.equal(parseBytes(text), bytes, text);
    assert.deepEqual(parsePolicy(`cap:${text}`), { kind: "cap", bytes });
  }
  for (const text of ["", "-1", "0", "MiB", "1iB", "1 2", "1XB", "1e999"]) {
    assert.throws(() => parseBytes(text), /is not a number of bytes/, text);
  }
});
