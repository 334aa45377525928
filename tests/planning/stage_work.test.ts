import assert from "node:assert/strict";
import { test } from "node:test";
import { createModel } from "../../lib/models/registry.ts";
import { stageWork } from "../../lib/planning/stage_work.ts";
import type { StageCost } from "../../lib/schedules/price/costs.ts";

const total = (work: readonly StageCost[], kind: "f" | "i" | "w") =>
  work.reduce((sum, cost) => sum + Number(cost[kind]), 0);

test("however a model is cut, its stages do the same work in all", () => {
  for (const name of ["llama-tiny", "resnet-tiny"]) {
    const [one, three] = [1, 3].map((stages) => stageWork(createModel(name), { stages, samples: 2 }));
    assert.equal(three.length, 3);
    for (const kind of ["f", "i", "w"] as const) assert.equal(total(three, kind), total(one, kind), `${name} ${kind}`);
  }
});

test("the matrix products of a LLaMa-like model are at least 2 operations a weight and token, and most of the work", () => {
  const { width, hidden, blocks, vocabulary, length } = createModel("llama-7b").configuration;
  const weights = blocks * (4 * width * width + 3 * width * hidden) + vocabulary * width;
  const f = total(stageWork(createModel("llama-7b"), { stages: 4, samples: 1 }), "f");
  const products = 2 * weights * length;
  assert.ok(f >= products && f < 1.2 * products, `${f / products}`);
});

test("recomputation costs forwards in I and derivatives in W, and leaves F alone", () => {
  const work = (recompute: "none" | "activations" | "derivatives" | "both") =>
    stageWork(createModel("llama-tiny"), { stages: 2, samples: 1, recompute });
  const none = work("none");
  for (const kind of ["activations", "derivatives", "both"] as const) {
    const again = work(kind);
    assert.equal(total(again, "f"), total(none, "f"), kind);
    const more = total(again, "i") + total(again, "w") - total(none, "i") - total(none, "w");
    assert.ok(more > 0, kind);
    if (kind === "activations") assert.ok(more <= total(none, "f"), "no more than every forward once again");
  }
});
