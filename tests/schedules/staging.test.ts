/** Messages on their way, counted by hand. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { StageMemory } from "../../lib/schedules/price/memory.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";

/** Nothing but messages: 1 for each activation, 10 for each gradient. */
const messages = (): StageMemory => ({ activations: 0, derivatives: 0, staging: { F: 1, I: 10 } });

test("a message counts until its receiver gets to it, where ranks record what they can before they wait", () => {
  const peaks = (name: string, devices: number, microbatches: number) =>
    peakMemory(generate(name, { devices, microbatches }), messages);
  // One at a time; but the second rank records its backward, gradient and all, while its activation is on its way.
  assert.deepEqual(peaks("naive", 3, 1), [1, 1 + 10, 10]);
  // The first rank sends all its activations before it waits for anything, the last all its gradients.
  assert.deepEqual(peaks("gpipe", 2, 4), [4, 40]);
  // Two activations go before the first gradient comes. The second of them comes before that gradient does, so that two go back.
  assert.deepEqual(peaks("1f1b", 2, 4), [2, 20]);
});

test("weight gradients change nothing about messages, and stages of one rank send none", () => {
  const base = generate("1f1b", { devices: 3, microbatches: 6 });
  for (const policy of ["end", "every:1"] as const) {
    assert.deepEqual(peakMemory(twoStage(base, { policy }), messages), peakMemory(base, messages));
  }
  assert.deepEqual(peakMemory(generate("zb-v", { devices: 1, microbatches: 2 }), messages), [0]);
});
