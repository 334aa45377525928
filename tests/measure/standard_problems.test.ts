import assert from "node:assert/strict";
import { test } from "node:test";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { candidatesFor } from "../../lib/measure/candidates.ts";
import { standardProblems } from "../../lib/measure/standard_problems.ts";
import { everyOperation } from "../ops/support.ts";

test("the standard problems have every operation at least once, whatever activations hold", async () => {
  const [{ gpu }] = dryDevices(1);
  for (const dtype of ["f32", "f16"] as const) {
    const measured = new Set((await standardProblems(gpu, dtype)).map(({ operation }) => operation));
    assert.deepEqual((await everyOperation()).filter((each) => !measured.has(each)).map(({ name }) => name), []);
  }
});

test("small standard problems try the same candidates as those to be timed, on devices of every kind", async () => {
  const kinds = [
    { software: true, subgroupSize: 8 },
    { software: true, subgroupSize: 4 },
    { software: false, subgroupSize: 32 },
    { software: false, subgroupSize: 0 },
  ];
  for (const kind of kinds) {
    for (const dtype of ["f32", "f16"] as const) {
      const [{ gpu }] = dryDevices(1, kind);
      const tried = async (size: "timed" | "small") => {
        const problems = await standardProblems(gpu, dtype, size);
        const names = problems.flatMap((each) =>
          candidatesFor(gpu, each).map(({ name }) => `${each.operation.name} ${name}`)
        );
        return [...new Set(names)].sort();
      };
      assert.deepEqual(await tried("small"), await tried("timed"), JSON.stringify({ ...kind, dtype }));
    }
  }
});
