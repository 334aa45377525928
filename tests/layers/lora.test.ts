/** Adapters beside projections: against float64, in others, frozen in part, and what is refused. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { checkGradients } from "../../lib/layers/check_gradients.ts";
import { frozen } from "../../lib/layers/frozen.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { linear } from "../../lib/layers/linear.ts";
import { lora } from "../../lib/layers/lora.ts";
import { isTrained } from "../../lib/layers/parameter.ts";
import { recomputed } from "../../lib/layers/recompute.ts";
import { reshape } from "../../lib/layers/reshape.ts";
import { close, device } from "../ops/support.ts";
import { project, transpose } from "../reference/linear.ts";
import { checkLayer } from "./support.ts";

after(close);

const parts = [["q", 4], ["k", 3], ["v", 2]].map(([name, outputs]) => ({ name: `${name}`, outputs: Number(outputs) }));
const low = (
  x: ArrayLike<number>,
  p: ReadonlyMap<string, ArrayLike<number>>,
  name: string,
  inputs: number,
  rank: number,
) => project(project(x, p.get(`${name}.lora_A.weight`)!, inputs), p.get(`${name}.lora_B.weight`)!, rank);

test("lora: y, dx, dA and dB equal the reference, and W needs x A and its gradient beside x and dy", async () => {
  for (const transposed of [false, true]) {
    await checkLayer(await device(), {
      layer: lora(linear("l", 6, 5, { transposed }), { rank: 2, alpha: 3 }),
      inputShape: [9, 6],
      reference(x, p) {
        const weight = p.get("l.weight")!, added = low(x, p, "l", 6, 2);
        return project(x, transposed ? transpose(weight, 6) : weight, 6).map((value, i) => value + 1.5 * added[i]);
      },
      keeps: ["base.x", "base.dy", "x", "dy", "l.low", "l.dlow"],
    });
  }
});

// Of 64 rows the slots of neighbours touch, and one product takes both micro-batches.
for (const rows of [9, 64]) {
  test(`lora of some of the projections side by side, ${rows} rows: each is in its own columns`, async () => {
    await checkLayer(await device(), {
      layer: lora(linear("qkv", 6, 9, { parts }), { rank: 3, alpha: 2, targets: (name) => name !== "k" }),
      inputShape: [rows, 6],
      reference(x, p) {
        const y = project(x, p.get("qkv.weight")!, 6);
        for (const [name, start, columns] of [["q", 0, 4], ["v", 7, 2]] as const) {
          const added = low(x, p, name, 6, 3);
          for (let i = 0; i < added.length; i++) {
            y[Math.floor(i / columns) * 9 + start + i % columns] += 2 / 3 * added[i];
          }
        }
        return y;
      },
      keeps: ["base.x", "base.dy", "x", "dy", "q.low", "v.low", "q.dlow", "v.dlow"],
    });
  });
}

test("checkGradients() finds nothing wrong with adapters on frozen bases, trained in part or recomputed", async () => {
  const on = await device();
  const base = frozen(linear("l", 6, 9, { bias: true, parts }));
  const whole = lora(base, { rank: 2, alpha: 3 });
  const cases: [Layer, string[]][] = [
    [whole, ["x", "q.low", "k.low", "v.low", "dy", "q.dlow", "k.dlow", "v.dlow"]],
    [frozen(whole, (name) => name.includes("lora_A")), ["q.low", "k.low", "v.low", "dy"]],
    [frozen(whole, (name) => !name.startsWith("q.lora_A")), ["x", "q.dlow"]],
    [recomputed(whole, "activations"), ["x", "q.low", "k.low", "v.low", "dy", "q.dlow", "k.dlow", "v.dlow"]],
    [recomputed(whole, "both"), ["x", "dy"]],
    [lora(recomputed(base, "both"), { rank: 2, targets: (name) => name === "v" }), ["x", "v.low", "v.dy", "v.dlow"]],
  ];
  for (const [layer, kept] of cases) {
    const { ok, rows, afterInput } = await checkGradients(layer, [9, 6], { device: on });
    assert.ok(ok, JSON.stringify(rows.filter((row) => !row.ok)));
    assert.deepEqual(afterInput.map(({ name }) => name.replace(/^layer\./, "")).sort(), [...kept].sort());
  }
});

test("an adapter starts with a random A and a B of zeros beside a base that stays frozen", () => {
  const { parameters } = lora(frozen(linear("l", 64, 9)), { rank: 2 });
  assert.deepEqual(parameters.map(({ name, shape, initial }) => [name, shape, initial]), [
    ["l.weight", [64, 9], { normal: 0.02 }],
    ["l.lora_A.weight", [64, 2], { normal: 1 / 8 }],
    ["l.lora_B.weight", [2, 9], "zeros"],
  ]);
  assert.deepEqual(parameters.map(isTrained), [false, true, true]);
});

test("the work of adapters is two thin products in each of F and I, and as much in W", () => {
  const base = linear("l", 64, 32), adapted = lora(frozen(base), { rank: 4 });
  const thin = 2 * 10 * 4 * (64 + 32);
  assert.deepEqual([adapted.flops([10, 64]).f, adapted.flops([10, 64]).i, adapted.flops([10, 64]).w], [
    base.flops([10, 64]).f + thin,
    base.flops([10, 64]).i + thin,
    thin,
  ]);
});

test("lora() refuses what projects nothing, targets that are none, and ranks that are none", () => {
  assert.throws(() => lora(gelu(), { rank: 2 }), {
    name: "UserError",
    message: "lora: the base, whose parameters are none, is no projection; give linear(), or a layer with `projects`",
  });
  assert.throws(() => lora(linear("qkv", 6, 9, { parts }), { rank: 2, targets: (name) => name === "qkv" }), {
    name: "UserError",
    message: "lora: no projection of the base is a target; it has q, k, v",
  });
  for (const options of [{ rank: 0 }, { rank: 1.5 }, { rank: 2, alpha: 0 }, { rank: 2, alpha: NaN }, { rnak: 2 }]) {
    assert.throws(() => lora(linear("l", 6, 9), options as { rank: number }), { name: "UserError" });
  }
  assert.throws(() => linear("qkv", 6, 8, { parts }), {
    name: "UserError",
    message: "qkv: its parts q, k, v have 9 outputs together, and it has 8",
  });
});

test("reshape: the elements stay in their order, both ways", async () => {
  const layer = reshape(([samples, height, width, channels]) => [samples * height * width, channels]);
  await checkLayer(await device(), { layer, inputShape: [2, 2, 3, 5], reference: (x) => x, keeps: [] });
  assert.throws(() => reshape(() => [7]).outputShape([2, 3]), {
    name: "UserError",
    message: "reshape makes [7] of [2, 3], which has 6 elements",
  });
});
