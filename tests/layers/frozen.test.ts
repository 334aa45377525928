/** Layers with frozen parameters against the same layers with none. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { selfAttention } from "../../lib/layers/attention.ts";
import { batchNorm } from "../../lib/layers/batch_norm.ts";
import { checkGradients } from "../../lib/layers/check_gradients.ts";
import { composed } from "../../lib/layers/composite.ts";
import { conv2d } from "../../lib/layers/conv2d.ts";
import { dropout } from "../../lib/layers/dropout.ts";
import { embedding } from "../../lib/layers/embedding.ts";
import { frozen } from "../../lib/layers/frozen.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import { createGroup, releaseGroup, slotIn } from "../../lib/layers/group.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { layerNorm } from "../../lib/layers/layer_norm.ts";
import { linear } from "../../lib/layers/linear.ts";
import { lora } from "../../lib/layers/lora.ts";
import { mambaMixer } from "../../lib/layers/mamba.ts";
import { isTrained, parameter } from "../../lib/layers/parameter.ts";
import { placeLayers } from "../../lib/layers/placed.ts";
import { positionedEmbedding } from "../../lib/layers/positioned_embedding.ts";
import { recomputed } from "../../lib/layers/recompute.ts";
import { reshape } from "../../lib/layers/reshape.ts";
import { postNorm, preNorm } from "../../lib/layers/residual.ts";
import { rmsNorm } from "../../lib/layers/rms_norm.ts";
import { backwardInput, backwardWeight, forward } from "../../lib/layers/run.ts";
import { createSaved } from "../../lib/layers/saved.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { shortcut } from "../../lib/layers/shortcut.ts";
import { isRead, type Sums } from "../../lib/layers/sums.ts";
import { swigluMlp } from "../../lib/layers/swiglu_mlp.ts";
import { frozenModel } from "../../lib/models/frozen_model.ts";
import { createModel } from "../../lib/models/registry.ts";
import { packIds } from "../../lib/ops/embedding.ts";
import { empty, fromArray, release, sizeOf, toArray, writeArray } from "../../lib/tensor.ts";
import { close, device, normal, tokens } from "../ops/support.ts";

after(close);

const R = 8, D = 8, L = 4, pixels = [2, 4, 4, 4];
const mlp = () => sequential([linear("up", D, 12, { bias: true }), gelu(), linear("down", 12, D, { bias: true })]);
const layers: Record<string, [Layer, readonly number[]]> = {
  linear: [linear("l", D, 5, { bias: true }), [R, D]],
  "linear, transposed": [linear("l", D, 5, { transposed: true }), [R, D]],
  lora: [lora(linear("l", D, 5, { bias: true }), { rank: 2, alpha: 3 }), [R, D]],
  rmsNorm: [rmsNorm("n", D), [R, D]],
  layerNorm: [layerNorm("n", D), [R, D]],
  batchNorm: [batchNorm("b", 4), pixels],
  "batchNorm with ReLU": [batchNorm("b", 4, { relu: true }), pixels],
  conv2d: [conv2d("c", 4, 5, { size: 3 }), pixels],
  embedding: [embedding("e", 6, D), [2, R]],
  positionedEmbedding: [
    positionedEmbedding("e", { vocabulary: 6, width: D, positions: L, types: 2, length: L }),
    [2, R],
  ],
  selfAttention: [
    selfAttention("a", { width: D, heads: 2, length: L, outputDeviation: 0.3, bias: true, dropout: 0.2 }),
    [R, D],
  ],
  swigluMlp: [swigluMlp("s", { width: D, hidden: 12, outputDeviation: 0.3 }), [R, D]],
  mambaMixer: [mambaMixer("m", { width: D, expand: 2, state: 4, rank: 2, length: L, outputBound: 0.3 }), [R, D]],
  sequential: [sequential([linear("l", D, D), dropout("d", { rate: 0.1, length: L }), rmsNorm("n", D)]), [R, D]],
  preNorm: [preNorm(rmsNorm("n", D), mlp()), [R, D]],
  postNorm: [postNorm(mlp(), layerNorm("n", D)), [R, D]],
  shortcut: [
    shortcut(sequential([conv2d("c", 4, 5, { size: 3 }), batchNorm("b", 5)]), conv2d("p", 4, 5, { size: 1 }), {
      relu: true,
    }),
    pixels,
  ],
  "recomputed, derivatives": [recomputed(preNorm(rmsNorm("n", D), mlp()), "derivatives"), [R, D]],
  "recomputed, both": [recomputed(preNorm(rmsNorm("n", D), mlp()), "both"), [R, D]],
};

const widths = [2, 1];

/** Runs micro-batches in groups of two and one, each I and W apart or as one. */
async function run(on: Device, layer: Layer, inputShape: readonly number[], delayed: boolean, sums: Sums = "i") {
  const before = on.ledger.total();
  const placed = placeLayers([layer], on, { seed: 3 });
  for (const { name, shape, ...each } of layer.parameters) {
    // Gains of 1 and biases of 0 would hide what is wrong with them.
    const { value } = placed.parameter(layer.parameters.find((other) => other.name === name)!);
    if (typeof each.initial === "string") {
      writeArray(value, normal(sizeOf(shape), 9).map((x) => x / 4 + Number(each.initial === "ones")));
    }
  }
  const rest = on.ledger.total();
  const isIds = inputShape[0] === 2 && inputShape.length === 2;
  const outputShape = layer.outputShape(inputShape);
  const results: Float32Array[] = [];
  const kept: string[][] = [];
  let seed = 10;
  for (const size of widths) {
    const group = createGroup(placed, size, { delayed, sums });
    const sides = () => new Map([["seed", fromArray(on, [2], Uint32Array.of(4, seed), "activations")]]);
    const all = Array.from({ length: size }, (_, index) => createSaved(group, index, sides()));
    for (const [index, saved] of all.entries()) {
      const made = isRead(layer.reads.input, sums)
        ? slotIn(group, index, "x", inputShape, "activations")
        : empty(on, inputShape, "activations", isIds ? "u32" : "f32");
      writeArray(made, isIds ? packIds(tokens(inputShape[1], 6, seed)) : normal(sizeOf(inputShape), seed));
      const y = empty(on, outputShape, "activations");
      forward(layer, y, made, saved);
      const dy = isRead(layer.reads.gradient, sums)
        ? slotIn(group, index, "dy", outputShape, "derivatives")
        : empty(on, outputShape, "derivatives");
      writeArray(dy, normal(sizeOf(outputShape), ++seed));
      const dx = isIds ? undefined : empty(on, inputShape, "derivatives");
      results.push(await toArray(y));
      release(made, y);
      backwardInput(layer, dx, dy, saved);
      release(dy);
      if (dx) results.push(await toArray(dx));
      release(dx);
      kept.push(saved.names());
    }
    backwardWeight(layer, all);
    all.forEach((saved) => saved.clear());
    releaseGroup(group);
  }
  const gradients = new Map<string, Float32Array>();
  for (const each of layer.parameters.filter(isTrained)) {
    gradients.set(each.name, await toArray(placed.parameter(each).gradient));
  }
  assert.equal(on.ledger.total(), rest, "the ledger is where it was");
  const bytes = on.ledger.live.gradients;
  placed.release();
  assert.equal(on.ledger.total(), before);
  return { results, kept, gradients, bytes };
}

for (const [name, [layer, shape]] of Object.entries(layers)) {
  test(`${name}: what is frozen changes neither y, dx nor the gradients of the rest, and costs nothing`, async () => {
    const on = await device();
    const names = layer.parameters.map(({ name }) => name);
    for (const [delayed, sums] of [[true, "i"], [true, "w"], [false, "i"]] as const) {
      const expected = await run(on, layer, shape, delayed, sums);
      const choices = [
        names,
        ...names.length > 1 ? names.map((one) => [one]) : [],
        ...names.length > 2 ? names.map((one) => names.filter((other) => other !== one)) : [],
      ];
      for (const still of choices) {
        const what = `frozen ${still.join(", ")}, W ${delayed ? "delayed" : "at once"}, sums in ${sums}`;
        const part = frozen(layer, (name) => still.includes(name));
        assert.deepEqual(part.parameters.map(({ name }) => name), names, what);
        assert.deepEqual(part.parameters.filter((each) => !isTrained(each)).map(({ name }) => name), still, what);
        const actual = await run(on, part, shape, delayed, sums);
        assert.deepEqual(actual.results, expected.results, what);
        assert.deepEqual([...actual.gradients.keys()], names.filter((each) => !still.includes(each)), what);
        for (const [each, gradient] of actual.gradients) {
          const right = expected.gradients.get(each)!, largest = Math.max(...right.map(Math.abs));
          assert.ok(largest > 0, each);
          gradient.forEach((value, i) =>
            assert.ok(Math.abs(value - right[i]) <= 1e-6 * largest, `${what}: gradient of ${each}[${i}]`)
          );
        }
        const [all, less] = [layer.flops(shape), part.flops(shape)];
        assert.equal(less.f, all.f, what);
        assert.ok(less.i <= all.i && less.w <= all.w && less.w >= 0, what);
        assert.ok(actual.bytes < expected.bytes, what);
        if (still === names) {
          assert.equal(less.w, 0, what);
          assert.equal(actual.bytes, 0, what);
          assert.deepEqual(actual.kept, actual.kept.map(() => []), `${what}: nothing waits for a W`);
          assert.ok(!part.reads.input && !part.reads.gradient, what);
        }
      }
    }
  });
}

test("the work of W is that of the parameters that are trained, one by one", () => {
  for (const [name, [layer, shape]] of Object.entries(layers)) {
    if (/mamba|recomputed/.test(name)) continue; // where kernels make several at once, and W recomputes for all
    const names = layer.parameters.map(({ name }) => name);
    const apart = names.map((one) =>
      names.length === 1 ? layer.flops(shape).w : frozen(layer, (name) => name !== one).flops(shape).w
    );
    assert.equal(apart.reduce((sum, w) => sum + w, 0), layer.flops(shape).w, name);
  }
});

test("a frozen projection keeps no x for its W between F and I either", async () => {
  const on = await device();
  const layer = frozen(linear("l", D, 5));
  const placed = placeLayers([layer], on), group = createGroup(placed, 1), saved = createSaved(group, 0);
  const x = empty(on, [R, D], "activations"), y = empty(on, [R, 5], "activations");
  forward(layer, y, x, saved);
  assert.deepEqual(saved.names(), []);
  assert.throws(() => saved.gradient(layer.parameters[0]), /^Error: "l\.weight" is frozen: it has no gradient$/);
  saved.clear();
  releaseGroup(group);
  release(x, y);
  placed.release();
});

/** A layer as others write one, without a word of freezing. */
const own = (): Layer => {
  const { freeze: _, ...layer } = linear("l", D, D, { bias: true });
  return layer;
};

test("a layer of one's own is frozen as a whole, also inside others, and in part where it says how", async () => {
  const on = await device();
  const layer = sequential([own(), rmsNorm("n", D)]);
  const expected = await run(on, layer, [R, D], true);
  const { results, kept, bytes, gradients } = await run(
    on,
    frozen(layer, (name) => name.startsWith("l.")),
    [R, D],
    true,
  );
  assert.deepEqual(results, expected.results);
  assert.deepEqual(gradients, new Map([["n.weight", expected.gradients.get("n.weight")!]]));
  assert.deepEqual(kept, kept.map(() => ["1.dgain"]));
  assert.ok(bytes > 0);
  const whole = await run(on, frozen(own()), [R, D], true);
  assert.deepEqual([whole.bytes, whole.kept], [0, [[], [], []]]);
  assert.equal(frozen(own()).flops([R, D]).w, 0);
  const norm = frozen({ ...rmsNorm("n", D), freeze: undefined });
  const around = preNorm(norm, own()); // whose I adds the residual's gradient
  assert.deepEqual(
    (await run(on, around, [R, D], true)).results,
    (await run(on, preNorm(rmsNorm("n", D), own()), [R, D], true)).results,
  );
  const composite = composed({ own: own() }, { ...own() });
  assert.throws(() => frozen(composite, (name) => name === "l.bias"), {
    name: "UserError",
    message:
      'A layer cannot be frozen in "l.bias" and not in "l.weight": one\'s own layers are frozen as a whole, unless they say ' +
      "with `freeze` how they are made in part",
  });
});

test("a layer that does not pass on what is frozen is refused, and one with parameters beside its parts is frozen whole", () => {
  const inner = linear("l", D, D), chain = sequential([inner]);
  for (const change of [{ withParts: () => chain, freeze: undefined }, { freeze: () => chain }]) {
    const { freeze, ...own } = { ...chain, ...change };
    const deaf = composed({ inner }, { ...own, parameters: [], ...freeze ? { freeze } : {} });
    assert.throws(() => frozen(deaf), {
      name: "UserError",
      message: '"l.weight" cannot be frozen: what its layer says with `freeze` or `withParts` makes it as it was',
    });
  }
  const { freeze: _, ...own } = chain;
  const more = parameter("more", [D], "zeros");
  const both: Layer = composed({ inner }, { ...own, parameters: [more], withParts: () => both });
  assert.deepEqual(frozen(both).parameters.map(isTrained), [false, false]);
  assert.throws(() => frozen(both, (name) => name === "more"), {
    message: /^A layer cannot be frozen in "more" and not/,
  });
});

test("frozen() refuses a name that no parameter has", () => {
  assert.throws(() => frozen(linear("l", 2, 2), (name) => name === "wieght"), {
    name: "UserError",
    message: "frozen: no parameter of the layer is meant; it has l.weight",
  });
  const expression = /up/ as unknown as () => boolean;
  assert.throws(() => frozen(mlp(), expression), {
    name: "UserError",
    message: /^frozen: isFrozen must be a function/,
  });
  assert.throws(() => frozenModel(createModel("llama-tiny"), expression), {
    ...{ name: "UserError", message: /^frozenModel: isFrozen must be a function/ },
  });
  assert.throws(() => reshape([1] as unknown as () => number[]), {
    ...{ name: "UserError", message: /^reshape: to must be a function/ },
  });
  assert.throws(() => frozen(gelu()), { message: "frozen: no parameter of the layer is meant; it has none" });
});

test("what is frozen stays so: freezing more leaves it, and what a layer is told to train is a choice of names", () => {
  const names = (layer: Layer) => layer.parameters.filter((each) => !isTrained(each)).map(({ name }) => name);
  const once = frozen(mlp(), (name) => name === "up.bias");
  assert.deepEqual(names(frozen(once, (name) => name === "down.weight")), ["up.bias", "down.weight"]);
  assert.deepEqual(names(linear("l", 2, 2, { bias: true, trainable: (name) => name.endsWith("bias") })), ["l.weight"]);
  assert.deepEqual(names(linear("l", 2, 2, { bias: true, trainable: false })), ["l.weight", "l.bias"]);
});

test("checkGradients() finds nothing wrong with frozen layers, and looks at the gradients that are left", async () => {
  const biased = linear("l", 6, 5, { bias: true });
  for (
    const layer of [
      frozen(biased),
      frozen(biased, (name) => name === "l.weight"),
      frozen(rmsNorm("n", D)),
    ]
  ) {
    const { ok, rows } = await checkGradients(layer, [9, layer.parameters[0].shape[0]], { device: await device() });
    assert.ok(ok, JSON.stringify(rows.filter((row) => !row.ok)));
    const names = rows.flatMap(({ check }) => /^the gradient of (\S+) \(of W\) is/.exec(check)?.[1] ?? []);
    assert.deepEqual(new Set(names), new Set(layer.parameters.filter(isTrained).map(({ name }) => name)));
  }
  // One's own, frozen as a whole, holds between F and I what it always holds.
  const { rows } = await checkGradients(frozen(own()), [9, D], { device: await device() });
  assert.deepEqual(rows.filter((row) => !row.ok).map(({ check }) => check), ["I or W reads all that F keeps"]);
});
