import assert from "node:assert/strict";
import { test } from "node:test";
import { create, globals } from "webgpu";
import { kernel, source } from "../../lib/gpu/kernel.ts";

test("the kernel for matrix units compiles on Dawn's null backend, whatever is transposed", async () => {
  Object.assign(globalThis, globals);
  const instance = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
  const adapter = (await instance.requestAdapter())!;
  const device = await adapter.requestDevice({
    requiredFeatures: ["chromium-experimental-subgroup-matrix", "shader-f16", "subgroups"] as GPUFeatureName[],
    requiredLimits: { maxComputeWorkgroupStorageSize: adapter.limits.maxComputeWorkgroupStorageSize },
  });
  for (const TRANSPOSE_A of [0, 1]) {
    for (const TRANSPOSE_B of [0, 1]) {
      for (const halves of [0b1100, 0b1110]) {
        const code = source(kernel("matmul_matrix", "matrix", { TRANSPOSE_A, TRANSPOSE_B }), halves);
        device.pushErrorScope("validation");
        const module = device.createShaderModule({ code });
        const { messages } = await module.getCompilationInfo();
        assert.deepEqual([...messages].map(({ message }) => message), []);
        assert.equal(await device.popErrorScope(), null);
      }
    }
  }
  device.destroy();
});
