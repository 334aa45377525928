import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { selfAttention } from "../../lib/layers/attention.ts";
import { batchNorm } from "../../lib/layers/batch_norm.ts";
import { conv2d } from "../../lib/layers/conv2d.ts";
import { dropout } from "../../lib/layers/dropout.ts";
import { embedding } from "../../lib/layers/embedding.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import { createGroup, releaseGroup } from "../../lib/layers/group.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { layerNorm } from "../../lib/layers/layer_norm.ts";
import { linear } from "../../lib/layers/linear.ts";
import { mambaMixer } from "../../lib/layers/mamba.ts";
import { averagePool, maxPool } from "../../lib/layers/pool.ts";
import { relu } from "../../lib/layers/relu.ts";
import { rmsNorm } from "../../lib/layers/rms_norm.ts";
import { placeLayers } from "../../lib/layers/placed.ts";
import { backwardInput, backwardWeight, forward } from "../../lib/layers/run.ts";
import { createSaved, type Saved } from "../../lib/layers/saved.ts";
import { swigluMlp } from "../../lib/layers/swiglu_mlp.ts";
import { empty, release, type Tensor } from "../../lib/tensor.ts";

/** What the letters of the table stand for here. */
const size = { R: 32, D: 24, O: 40, H: 28, S: 2, L: 16, A: 2, P: 8, C: 12, E: 48, N: 8, T: 3, Q: 20 };
const { R, D, O, H, S, L, A, P, C, E, N, T } = size;

const layers: Record<string, [Layer, readonly number[]]> = {
  linear: [linear("l", D, O), [R, D]],
  rmsNorm: [rmsNorm("n", D), [R, D]],
  layerNorm: [layerNorm("n", D), [R, D]],
  batchNorm: [batchNorm("b", C), [S, P, P, C]],
  conv2d: [conv2d("c", C, O, { size: 3 }), [S, P, P, C]],
  maxPool: [maxPool({ size: 2, stride: 2, padding: 0 }), [S, P, P, C]],
  averagePool: [averagePool(), [S, P, P, C]],
  gelu: [gelu(), [R, D]],
  relu: [relu(), [R, D]],
  dropout: [dropout("d", { rate: 0.1, length: L }), [R, D]],
  embedding: [embedding("e", 50, D), [2, R]],
  selfAttention: [selfAttention("a", { width: D, heads: A, kvHeads: A, length: L, outputDeviation: 0.02 }), [R, D]],
  swigluMlp: [swigluMlp("s", { width: D, hidden: H, outputDeviation: 0.02 }), [R, D]],
  mambaMixer: [mambaMixer("m", { width: D, expand: E / D, state: N, rank: T, length: L, outputBound: 0.1 }), [R, D]],
};

/** The table of lib/layers/README.md: of each layer three lists of `name [shape]`. */
function table(): Map<string, string[][]> {
  const text = readFileSync(new URL("../../lib/layers/README.md", import.meta.url), "utf8");
  const rows = text.split("\n").filter((line) => line.startsWith("| ")).slice(2);
  return new Map(rows.map((row) => {
    const [name, ...cells] = row.split("|").slice(1, -1).map((cell) => cell.trim());
    return [
      name,
      cells.map((cell) => [...cell.matchAll(/[\w.]+ \[[^\]]*\]/g)].map(([entry]) => evaluated(entry)).sort()),
    ];
  }));
}

/** `x [R, 3·D]` with numbers in place of letters. */
function evaluated(entry: string): string {
  const [, name, shape] = /^([\w.]+) \[(.*)\]$/.exec(entry)!;
  const value = (term: string) => {
    const digits = term.replace(/[A-Z]/g, (letter) => String(size[letter as keyof typeof size]));
    const [, left, operator, right] = /^(\d+)([·/])(\(\d+\+\d+\)|\d+)$/.exec(digits) ?? [];
    if (!operator) return Number(digits);
    const factor = right.replace(/[()]/g, "").split("+").reduce((sum, part) => sum + Number(part), 0);
    return operator === "·" ? Number(left) * factor : Number(left) / factor;
  };
  return `${name} [${shape.split(", ").map(value).join(", ")}]`;
}

function kept(saved: Saved): { entry: string; tensor: Tensor }[] {
  return saved.kept().map(([path, tensor]) => ({ entry: `${path} [${tensor.shape.join(", ")}]`, tensor }));
}

test("every layer keeps after F and after I what the table in lib/layers/README.md says, and nothing after W", () => {
  const expected = table();
  assert.deepEqual([...expected.keys()].sort(), Object.keys(layers).sort());
  for (const [name, [layer, shape]] of Object.entries(layers)) {
    const [device] = dryDevices(1);
    const placed = placeLayers([layer], device);
    const rest = device.ledger.total();
    const sides = new Map(["seed", "lengths"].map((side) => [side, empty(device, [S], "activations", "u32")]));
    const group = createGroup(placed, 1);
    const saved = createSaved(group, 0, sides);
    const [afterF, forW, derivatives] = expected.get(name)!;
    const x = empty(device, shape, "activations", name === "embedding" ? "u32" : "f32");
    const y = empty(device, layer.outputShape(shape), "activations");
    forward(layer, y, x, saved);
    assert.deepEqual(kept(saved).map(({ entry }) => entry).sort(), afterF, `${name} after F`);
    const dy = empty(device, y.shape, "derivatives");
    const dx = name === "embedding" ? undefined : empty(device, shape, "derivatives");
    backwardInput(layer, dx, dy, saved);
    const left = (category: string) =>
      kept(saved).filter(({ tensor }) => tensor.storage.category === category).map(({ entry }) => entry).sort();
    assert.deepEqual(left("activations"), forW, `${name} after I, activations`);
    assert.deepEqual(left("derivatives"), derivatives, `${name} after I, derivatives`);
    assert.equal(kept(saved).length, forW.length + derivatives.length, name);
    backwardWeight(layer, [saved]);
    saved.clear();
    releaseGroup(group);
    release(x, y, dy, dx);
    assert.equal(device.ledger.total(), rest, `${name} after W`);
    placed.release();
  }
});
