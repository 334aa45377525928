import assert from "node:assert/strict";
import { test } from "node:test";
import { checkPartition, megatronLayout, placementStyle, torchtitanLines } from "../../lib/schedules/csv/frameworks.ts";
import { fromCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { names } from "./support.ts";

const placed = (...placement: number[]): Schedule => ({ name: "any", placement, actions: [] });

test("a placement is a loop, a V, or neither", () => {
  assert.equal(placementStyle(placed(0, 1, 2)), "loop");
  assert.equal(placementStyle(placed(0, 1, 0, 1, 0, 1)), "loop");
  assert.equal(placementStyle(placed(0, 1, 2, 2, 1, 0)), "v");
  for (const other of [[1, 0], [0, 0, 1, 1], [0, 1, 1], [0, 1, 1, 0, 0, 1], [0, 2, 1], [0, 1, 0]]) {
    assert.equal(placementStyle(placed(...other)), "other", String(other));
  }
});

test("the whole zoo has a place in torchtitan: 1F1B for one stage a rank, ZBVZeroBubble for a V, Interleaved1F1B else", () => {
  for (const name of names) {
    const schedule = generate(name, { devices: 4 });
    const lines = torchtitanLines(schedule, "plan.csv")!;
    const style = /pipeline_parallel_schedule = "(\w+)"/.exec(lines.join("\n"))![1];
    // torchtitan's rule: one stage a rank of a single-stage class; the stages of rank r of the others.
    const stagesOf = (rank: number) =>
      style === "1F1B" ? [rank] : style === "ZBVZeroBubble" ? [rank, 7 - rank] : [rank, rank + 4];
    const ours = (rank: number) => schedule.placement.flatMap((at, stage) => at === rank ? [stage] : []);
    for (let rank = 0; rank < 4; rank++) assert.deepEqual(stagesOf(rank), ours(rank), name);
  }
  const consecutive = fromCsv("0F0,1F0,1B0,0B0\n2F0,3F0,3B0,2B0\n");
  assert.equal(torchtitanLines(consecutive, "plan.csv"), undefined);
});

test("torchtitan's module names follow the partition, the embedding first and the head last", () => {
  const lines = torchtitanLines(generate("1f1b-1", { devices: 2 }), "plan.csv", [2, 1])!.join("\n");
  assert.match(lines, /pipeline_parallel_degree = 2\n.*num_pp_microbatches = 2\n/);
  assert.match(lines, /\["tok_embeddings", "layers.0", "layers.1"\],\n {4}\["layers.2", "norm", "lm_head"\],\n\]$/);
});

/** What Megatron-LM makes of a layout, by its documentation: `x*n` is n times x, commas are nothing, `|` ends a stage. */
function stagesOf(layout: string): { layers: number; embeds: boolean; loses: boolean }[] {
  const plain = layout.replaceAll(",", "").replace(/(.)\*(\d+)/g, (_, letter, count) => letter.repeat(count));
  assert.match(plain, /^[EtL|]+$/);
  return plain.split("|").map((stage) => ({
    layers: stage.split("t").length - 1,
    embeds: stage.includes("E"),
    loses: stage.endsWith("L"),
  }));
}

test("Megatron's layout says the layers of each stage, with the embedding on the first and the loss on the last", () => {
  const cases: [schedule: Schedule, layers: number[]][] = [
    [generate("1f1b-1", { devices: 3 }), [4, 12, 1]],
    [generate("interleaved-1f1b", { devices: 2 }), [0, 3, 1, 0]],
    [generate("naive", { devices: 1 }), [10]],
  ];
  for (const [schedule, layers] of cases) {
    const stages = stagesOf(megatronLayout(schedule, layers)!);
    assert.deepEqual(stages.map((stage) => stage.layers), layers);
    assert.deepEqual(stages.map(({ embeds }) => embeds), layers.map((_, stage) => stage === 0));
    assert.deepEqual(stages.map(({ loses }) => loses), layers.map((_, stage) => stage === layers.length - 1));
  }
  assert.equal(megatronLayout(generate("1f1b-1", { devices: 2 }), [3, 2]), "Et*3|t*2,L");
  assert.equal(megatronLayout(generate("zb-v", { devices: 2 }), [1, 1, 1, 1]), undefined);
});

test("a partition of another number of stages is refused", () => {
  assert.throws(
    () => checkPartition(generate("zb-v", { devices: 2 }), [1, 2]),
    /^UserError: --partition has 2 numbers for 4 stages; give the transformer layers of each stage, from the input on$/,
  );
});
