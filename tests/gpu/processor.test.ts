import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { hasAvx2 } from "../../lib/gpu/processor.ts";
import * as browser from "../../lib/gpu/processor.browser.ts";
import { shuffles } from "../../lib/ops/matmul_kernels.ts";

test("AVX2 is among a processor's flags or it is not, and where nothing lists them it is assumed", () => {
  const folder = mkdtempSync(join(tmpdir(), "processor-"));
  const read = (text: string) => {
    const file = join(folder, "cpuinfo");
    writeFileSync(file, text);
    return hasAvx2(file);
  };
  try {
    assert.ok(read("processor\t: 0\nflags\t\t: fpu sse2 avx avx2 fma\n\nprocessor\t: 1\nflags\t\t: fpu\n"));
    assert.ok(!read("processor\t: 0\nflags\t\t: fpu sse2 avx f16c avx2_of_another_name\n"));
    assert.ok(read("processor\t: 0\nFeatures\t: fp asimd\n"), "no x86");
    assert.ok(hasAvx2(join(folder, "none")), "not Linux");
    assert.ok(browser.hasAvx2());
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("products shuffle where a shuffle is one instruction: eight lanes and AVX2", () => {
  assert.ok(shuffles(8, true));
  assert.ok(!shuffles(8, false));
  for (const lanes of [4, 16]) assert.ok(!shuffles(lanes, true), `${lanes} lanes`);
});
