import assert from "node:assert/strict";
import { test } from "node:test";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { standardProblems } from "../../lib/measure/standard_problems.ts";
import { everyOperation } from "../ops/support.ts";

test("the standard problems have every operation at least once, whatever activations hold", async () => {
  const [{ gpu }] = dryDevices(1);
  for (const dtype of ["f32", "f16"] as const) {
    const measured = new Set((await standardProblems(gpu, dtype)).map(({ operation }) => operation));
    assert.deepEqual((await everyOperation()).filter((each) => !measured.has(each)).map(({ name }) => name), []);
  }
});
