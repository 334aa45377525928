/** Tensors that need more workgroups than an axis may have, made small by lowering what an axis may have. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { copyProblem } from "../../lib/measure/problem_copy.ts";
import { standardProblems } from "../../lib/measure/standard_problems.ts";
import { axis } from "../../lib/ops/variants.ts";
import { close, device } from "./support.ts";

after(close);

type Grid = Parameters<Device["dispatch"]>[3];

/** The grids that `record` asks for. */
function gridsOf(on: Device, record: () => void): Grid[] {
  const grids: Grid[] = [];
  const own = on.dispatch;
  on.dispatch = function (...call) {
    grids.push(call[3]);
    return own.apply(this, call);
  };
  try {
    record();
  } finally {
    on.dispatch = own;
  }
  return grids;
}

/** The same where an axis may have no more than `most`; the device refuses every grid beyond. */
function gridsWithin(most: number, on: Device, record: () => void): Grid[] {
  const usual = axis.most, gpu = on.gpu as { mostWorkgroups: number };
  axis.most = gpu.mostWorkgroups = most;
  try {
    return gridsOf(on, record);
  } finally {
    axis.most = gpu.mostWorkgroups = usual;
  }
}

/** Kernels of as few workgroups as their tensors have nothing to do with. */
const fixed = new Set(["sum", "look", "muonNormalise"]);

test("every operation has the same bits where its workgroups are more than an axis may have", async () => {
  const on = await device();
  const { gpu } = on, spread = new Set<string>(), names = new Set<string>(), done = new Set<string>();
  for (const observed of await standardProblems(gpu, "f32", "several")) {
    const { operation } = observed;
    if (fixed.has(operation.name)) continue;
    names.add(operation.name);
    for (const candidate of operation.candidates) {
      // One problem each, and of products one with and one without a batch.
      const key = `${operation.name} ${candidate.name} ${String((observed.problem as { batch?: unknown }).batch)}`;
      if (done.has(key)) continue;
      const copy = copyProblem(on, observed);
      if (candidate.supports(gpu.info, copy.problem) && !candidate.hopeless?.(gpu.info, copy.problem)) {
        done.add(key);
        const before = gridsOf(on, () => candidate.record(copy.problem));
        const expected = await copy.results();
        copy.reset();
        // As low as two axes still hold it; what has three has its own on y.
        const most = Math.max(
          2,
          ...before.map(([x, y = 1, z]) => z === undefined || y === 1 ? Math.ceil(Math.sqrt(x * y)) : Math.max(x, y)),
        );
        const grids = gridsWithin(most, on, () => candidate.record(copy.problem));
        assert.deepEqual(await copy.results(), expected, `${operation.name} ${candidate.name}, ${most} an axis`);
        if (JSON.stringify(grids) !== JSON.stringify(before)) spread.add(operation.name);
      }
      copy.release();
    }
  }
  assert.deepEqual([...names].filter((name) => !spread.has(name)), [], "operations with too few workgroups to tell");
});
