import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { createGroup, releaseGroup } from "../../lib/layers/group.ts";
import type { Sums } from "../../lib/layers/sums.ts";
import { placeLayers } from "../../lib/layers/placed.ts";
import { backwardInput, backwardWeight, forward } from "../../lib/layers/run.ts";
import { createSaved, type Saved } from "../../lib/layers/saved.ts";
import { empty, release, type Tensor } from "../../lib/tensor.ts";
import { layers, size } from "./every.ts";

const { S } = size;

/** Those that keep something else where W makes the sums, which the table has in a row of their own. */
const inW = ["rmsNorm", "layerNorm", "mambaMixer"];

/** Each layer, who makes its sums, and the name of its row. */
const rows = Object.entries(layers).flatMap(([name, [layer, shape]]) => {
  const own = { row: name, name, layer, shape, sums: "i" as Sums };
  return inW.includes(name) ? [own, { ...own, row: `${name}, sums in W`, sums: "w" as Sums }] : [own];
});

/** The table of lib/layers/README.md: of each layer three lists of `name [shape]`. */
function table(): Map<string, string[][]> {
  const text = readFileSync(new URL("../../lib/layers/README.md", import.meta.url), "utf8");
  const rows = text.slice(text.indexOf("## What layers keep")).split("\n").filter((line) => line.startsWith("| "))
    .slice(2);
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
  assert.deepEqual([...expected.keys()].sort(), rows.map(({ row }) => row).sort());
  for (const { row, name, layer, shape, sums } of rows) {
    const [device] = dryDevices(1);
    const placed = placeLayers([layer], device);
    const rest = device.ledger.total();
    const sides = new Map(["seed", "lengths"].map((side) => [side, empty(device, [S], "activations", "u32")]));
    const group = createGroup(placed, 1, { sums });
    const saved = createSaved(group, 0, sides);
    const [afterF, forW, derivatives] = expected.get(row)!;
    const x = empty(device, shape, "activations", name === "embedding" ? "u32" : "f32");
    const y = empty(device, layer.outputShape(shape), "activations");
    forward(layer, y, x, saved);
    assert.deepEqual(kept(saved).map(({ entry }) => entry).sort(), afterF, `${row} after F`);
    const dy = empty(device, y.shape, "derivatives");
    const dx = name === "embedding" ? undefined : empty(device, shape, "derivatives");
    backwardInput(layer, dx, dy, saved);
    const left = (category: string) =>
      kept(saved).filter(({ tensor }) => tensor.storage.category === category).map(({ entry }) => entry).sort();
    assert.deepEqual(left("activations"), forW, `${row} after I, activations`);
    assert.deepEqual(left("derivatives"), derivatives, `${row} after I, derivatives`);
    assert.equal(kept(saved).length, forW.length + derivatives.length, row);
    backwardWeight(layer, [saved]);
    saved.clear();
    releaseGroup(group);
    release(x, y, dy, dx);
    assert.equal(device.ledger.total(), rest, `${row} after W`);
    placed.release();
  }
});

test("whoever makes the sums, all other layers keep the same", () => {
  const [device] = dryDevices(1);
  for (const [name, [layer, shape]] of Object.entries(layers)) {
    if (inW.includes(name)) continue;
    assert.equal(layer.flops(shape).sums, undefined, name);
    const { input, gradient } = layer.reads;
    assert.ok(input !== "sums" && gradient !== "sums", name);
    const left = (["i", "w"] as const).map((sums) => {
      const placed = placeLayers([layer], device), group = createGroup(placed, 1, { sums });
      const sides = new Map(["seed", "lengths"].map((side) => [side, empty(device, [S], "activations", "u32")]));
      const saved = createSaved(group, 0, sides);
      const x = empty(device, shape, "activations", name === "embedding" ? "u32" : "f32");
      const y = empty(device, layer.outputShape(shape), "activations");
      forward(layer, y, x, saved);
      backwardInput(layer, undefined, y, saved);
      const names = kept(saved).map(({ entry }) => entry);
      saved.clear();
      releaseGroup(group);
      release(x, y);
      placed.release();
      return names;
    });
    assert.deepEqual(left[1], left[0], name);
  }
});
