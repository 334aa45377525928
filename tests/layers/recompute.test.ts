import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { selfAttention } from "../../lib/layers/attention.ts";
import { batchNorm } from "../../lib/layers/batch_norm.ts";
import { conv2d } from "../../lib/layers/conv2d.ts";
import { dropout } from "../../lib/layers/dropout.ts";
import { embedding } from "../../lib/layers/embedding.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import { createGroup, releaseGroup, slotIn } from "../../lib/layers/group.ts";
import { linear } from "../../lib/layers/linear.ts";
import { mambaMixer } from "../../lib/layers/mamba.ts";
import { placeLayers } from "../../lib/layers/placed.ts";
import { type Recompute, recomputed } from "../../lib/layers/recompute.ts";
import { relu } from "../../lib/layers/relu.ts";
import { preNorm } from "../../lib/layers/residual.ts";
import { rmsNorm } from "../../lib/layers/rms_norm.ts";
import { backwardInput, backwardWeight, forward } from "../../lib/layers/run.ts";
import { createSaved } from "../../lib/layers/saved.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { swigluMlp } from "../../lib/layers/swiglu_mlp.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { fromArray, release, sizeOf, toArray } from "../../lib/tensor.ts";
import { close, device, dirty, normal } from "../ops/support.ts";
import { project } from "../reference/linear.ts";
import { rmsNorm as rmsNormOf } from "../reference/norm.ts";
import { swiglu } from "../reference/swiglu.ts";
import { checkLayer } from "./support.ts";

after(close);

const mlp = () => preNorm(rmsNorm("n", 64), swigluMlp("m", { width: 64, hidden: 96, outputDeviation: 0.02 }));

/** Names and bytes in the ledger after F and after I of each of two micro-batches, and all that came out in the end. */
async function trace(
  on: Device,
  layer: Layer,
  inputShape: readonly number[],
  { delayed = true, width = 2, dx = true } = {},
) {
  const before = on.ledger.total();
  const placed = placeLayers([layer], on, { seed: 3 });
  const groups = Array.from({ length: 2 / width }, () => createGroup(placed, width, { delayed }));
  const outputShape = layer.outputShape(inputShape);
  const held = () => on.ledger.live.activations + on.ledger.live.derivatives;
  const names: string[][] = [], bytes: number[] = [], numbers: Float32Array[] = [];
  const enter = (saved: { names(): string[] }) => {
    names.push(saved.names().sort());
    bytes.push(held());
  };
  const runs = [0, 1].map((index) => {
    const seed = fromArray(on, [2], Uint32Array.of(7, index), "workspace");
    return createSaved(groups[Math.floor(index / width)], index % width, new Map([["seed", seed]]));
  });
  for (const [index, saved] of runs.entries()) {
    const x = layer.reads.input
      ? slotIn(saved.group, saved.index, "in", inputShape, "activations")
      : fromArray(on, inputShape, new Float32Array(sizeOf(inputShape)), "activations");
    on.write(x, normal(sizeOf(inputShape), 10 + index));
    const y = dirty(on, outputShape);
    forward(layer, y, x, saved);
    numbers.push(await toArray(y));
    release(x, y);
    enter(saved);
  }
  for (const [index, saved] of runs.entries()) {
    const dy = slotIn(saved.group, saved.index, "out", outputShape, "derivatives");
    on.write(dy, normal(sizeOf(outputShape), 20 + index));
    const gradient = dx ? dirty(on, inputShape) : undefined;
    backwardInput(layer, gradient, dy, saved);
    if (gradient) numbers.push(await toArray(gradient));
    release(dy, gradient);
    enter(saved);
  }
  on.ledger.resetPeak();
  const waiting = on.ledger.live.derivatives;
  for (let at = 0; at < 2; at += width) backwardWeight(layer, runs.slice(at, at + width));
  const rise = on.ledger.peak.derivatives - waiting;
  for (const each of layer.parameters) numbers.push(await toArray(placed.parameter(each).gradient));
  for (const each of layer.buffers ?? []) numbers.push(await toArray(placed.state(each).value));
  runs.forEach((saved) => saved.clear());
  groups.forEach(releaseGroup);
  placed.release();
  assert.equal(on.ledger.total(), before, "the ledger is where it was");
  return { names, bytes, numbers, rise };
}

const prefixed = (...names: string[]) => names.map((name) => `layer.${name}`);

test("a recomputed layer equals the reference, and keeps for W what the kind says", async () => {
  const width = 8, hidden = 6;
  for (
    const [what, keeps, keepsForSums] of [
      [
        "activations",
        prefixed(
          "norm.dgain",
          "inner.gate_up.x",
          "inner.gate_up.dy",
          "inner.down.x",
          "inner.down.dy",
        ),
        prefixed(
          ...["norm.x", "norm.rstd", "norm.dy"],
          ...["inner.gate_up.x", "inner.gate_up.dy", "inner.down.x", "inner.down.dy"],
        ),
      ],
      ["derivatives", ["x", "dy"], ["x", "dy"]],
      ["both", ["x", "dy"], ["x", "dy"]],
    ] as const
  ) {
    const inner = preNorm(rmsNorm("m.norm", width), swigluMlp("m", { width, hidden, outputDeviation: 0.02 }));
    await checkLayer(await device(), {
      layer: recomputed(inner, what),
      inputShape: [16, width],
      reference: (x, p) => {
        const gateUp = project(rmsNormOf(x, p.get("m.norm.weight")!).y, p.get("m.gate_up.weight")!, width);
        const out = project(swiglu(gateUp, hidden), p.get("m.down.weight")!, hidden);
        return Float64Array.from(x, (value, i) => value + out[i]);
      },
      keeps,
      keepsForSums,
    });
  }
});

test("bytes after F and after I are x, x and dy, or what the layer keeps without recomputation", async () => {
  const rows = 96, width = 64, hidden = 96, on = await device();
  const row = 4 * rows, rounded = (bytes: number) => Math.ceil(bytes / 256) * 256;
  const x = row * width, dy = row * width;
  // After F: x, the norm's deviations and result, [gate | up] and the gated product. After I: the norm's result
  // and the gated product, the gradients of [gate | up] and y, and the sums for the gain's.
  const afterF = x + rounded(row) + row * (width + 2 * hidden + hidden);
  const afterI = row * (width + hidden) + dy + row * 2 * hidden + rounded(4 * width);
  const expected: Record<Recompute, readonly [number, number]> = {
    none: [afterF, afterI],
    activations: [x, afterI],
    derivatives: [afterF, x + dy],
    both: [x, x + dy],
  };
  for (const [what, [f, i]] of Object.entries(expected)) {
    // One micro-batch after the other through F, then through I: each has slots of its own, at width 1.
    const { bytes } = await trace(on, recomputed(mlp(), what as Recompute), [rows, width], { width: 1 });
    assert.deepEqual(bytes.map((each) => each - bytes[0] + f), [f, 2 * f, f + i, 2 * i], what);
    assert.equal(bytes[0], f, what);
  }
});

test("a full backward follows I with W at once: derivatives are kept, activations are not", async () => {
  const on = await device();
  const at = async (what: Recompute) =>
    await trace(on, recomputed(mlp(), what), [32, 64], { delayed: false, width: 1 });
  const [none, activations, derivatives, both] = [
    await at("none"),
    await at("activations"),
    await at("derivatives"),
    await at("both"),
  ];
  assert.deepEqual(derivatives.bytes, none.bytes);
  assert.deepEqual(both.bytes, activations.bytes);
  assert.ok(both.bytes[1] < none.bytes[1] / 4);
  for (const { numbers } of [activations, derivatives, both]) assert.deepEqual(numbers, none.numbers);
});

const layers: Record<string, [() => Layer, readonly number[]]> = {
  "attention with dropout": [
    () => selfAttention("a", { width: 16, heads: 2, length: 8, outputDeviation: 0.1, bias: true, dropout: 0.3 }),
    [16, 16],
  ],
  "a feed-forward network": [mlp, [32, 64]],
  "a Mamba mixer": [
    () => mambaMixer("m", { width: 16, expand: 2, state: 4, rank: 2, length: 8, outputBound: 0.1 }),
    [16, 16],
  ],
  "a chain with dropout between": [
    () =>
      sequential([
        linear("l", 16, 16, { bias: true }),
        dropout("d", { rate: 0.5, length: 8 }),
        gelu(),
        linear("m", 16, 16),
      ]),
    [16, 16],
  ],
  "normalised convolutions": [
    () =>
      sequential([
        conv2d("c", 4, 8, { size: 3 }),
        batchNorm("b", 8),
        relu(),
        conv2d("e", 8, 8, { size: 1 }),
      ]),
    [2, 8, 8, 4],
  ],
};

for (const [name, [make, shape]] of Object.entries(layers)) {
  test(`${name} gives the same bits when recomputed, running statistics and skipped input gradients too`, async () => {
    const on = await device();
    for (const options of [{ width: 2 }, { width: 1 }, { width: 1, dx: false }]) {
      const { numbers } = await trace(on, make(), shape, options);
      assert.ok(numbers.every((array) => array.some((value) => value !== 0)), "all zeros would prove nothing");
      for (const what of ["activations", "derivatives", "both"] as const) {
        const again = await trace(on, recomputed(make(), what), shape, options);
        assert.deepEqual(again.numbers, numbers, `${what}, ${JSON.stringify(options)}`);
      }
    }
  });
}

test("layers inside a recomputed layer can be recomputed themselves", async () => {
  const on = await device();
  const make = (inner: Recompute, outer: Recompute) =>
    recomputed(sequential([recomputed(mlp(), inner), recomputed(batchNormed(), inner)]), outer);
  const batchNormed = () => sequential([batchNorm("b", 64), relu(), linear("l", 64, 8)]);
  const expected = await trace(on, make("none", "none"), [32, 64]);
  for (const inner of ["activations", "derivatives", "both"] as const) {
    for (const outer of ["activations", "derivatives", "both"] as const) {
      const { numbers } = await trace(on, make(inner, outer), [32, 64]);
      assert.deepEqual(numbers, expected.numbers, `${inner} in ${outer}`);
    }
  }
});

test("W recomputes the derivatives of one layer at a time, however many there are", async () => {
  const on = await device();
  const chain = (count: number) => sequential(Array.from({ length: count }, () => recomputed(mlp(), "both")));
  const [one, three] = [await trace(on, chain(1), [32, 64]), await trace(on, chain(3), [32, 64])];
  assert.ok(one.rise > 0);
  assert.equal(three.rise, one.rise);
});

test("recomputed work is counted where it is done, once in a full backward", () => {
  const { f, i, w, recompute, sums } = mlp().flops([32, 64]);
  // Gate and up are projected again, and multiplied; the last projection has nobody to read its result.
  assert.equal(recompute, f - 2 * 32 * 96 * 64);
  const of = (what: Recompute) => sequential([recomputed(mlp(), what)]).flops([32, 64]);
  const more = f - 2 * 32 * 96 * 64;
  assert.deepEqual(of("none"), { f, i, w, recompute, sums });
  assert.deepEqual(of("activations"), { f, i: more + i, w, b: more + i + w, sums, ahead: more });
  assert.deepEqual(of("derivatives"), { f, i, w: more + i + w, b: i + w });
  assert.deepEqual(of("both"), { f, i: more + i, w: more + i + w, b: more + i + w, ahead: more });
});

test("a recomputing forward leaves out what nobody reads, where a layer says so", async () => {
  const on = await device();
  for (const [name, [make, shape]] of Object.entries(layers)) {
    const layer = make();
    const { f, recompute = f } = layer.flops(shape);
    const placed = placeLayers([layer], on, { seed: 3 });
    const group = createGroup(placed, 1);
    const seed = fromArray(on, [2], Uint32Array.of(7, 0), "workspace");
    const saved = createSaved(group, 0, new Map([["seed", seed]]));
    const x = fromArray(on, shape, normal(sizeOf(shape), 1), "activations");
    const y = fromArray(
      on,
      layer.outputShape(shape),
      new Float32Array(sizeOf(layer.outputShape(shape))),
      "activations",
    );
    forward(layer, y, x, saved.child("layer", { recomputing: true, unread: true }));
    assert.ok(recompute < f, `${name} does all of its work again`);
    assert.ok((await toArray(y)).every((value) => value === 0), `${name} writes its result`);
    saved.clear();
    releaseGroup(group);
    release(x, y);
    placed.release();
  }
});

test("layers that would gain nothing are left as they are", () => {
  for (
    const layer of [linear("l", 4, 4), conv2d("c", 4, 4, { size: 3 }), embedding("e", 4, 4), gelu()]
  ) {
    assert.equal(recomputed(layer, "both"), layer);
  }
  const layer = mlp();
  assert.equal(recomputed(layer, "none"), layer);
  assert.notEqual(recomputed(layer, "derivatives"), layer);
});
