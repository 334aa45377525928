import assert from "node:assert/strict";
import { after, test } from "node:test";
import { batchNorm } from "../../lib/layers/batch_norm.ts";
import { conv2d } from "../../lib/layers/conv2d.ts";
import type { Layer, ResidualNorm } from "../../lib/layers/layer.ts";
import type { Placed } from "../../lib/layers/placed.ts";
import { averagePool, maxPool } from "../../lib/layers/pool.ts";
import { recomputed } from "../../lib/layers/recompute.ts";
import { relu } from "../../lib/layers/relu.ts";
import { postNorm, preNorm } from "../../lib/layers/residual.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { shortcut } from "../../lib/layers/shortcut.ts";
import { toArray } from "../../lib/tensor.ts";
import { close, device, normal } from "../ops/support.ts";
import { batchNorm as batchNormOf, updateRunning } from "../reference/batch_norm.ts";
import { conv2d as conv2dOf, type ConvShape } from "../reference/conv.ts";
import { averagePool as averagePoolOf, maxPool as maxPoolOf } from "../reference/pool.ts";
import { checkLayer, checkSkippedInputGradient, type LayerCase } from "./support.ts";

after(close);

const convolve = (x: ArrayLike<number>, weight: ArrayLike<number>, shape: Omit<ConvShape, "padding">) =>
  conv2dOf(x, weight, { ...shape, padding: (shape.size - 1) / 2 });

const check = async (layerCase: LayerCase) => await checkLayer(await device(), layerCase);

for (const [size, stride, inputs, outputs] of [[1, 1, 3, 5], [3, 1, 4, 4], [3, 2, 3, 4], [7, 2, 3, 2], [1, 2, 4, 3]]) {
  test(`convolution ${size} x ${size}, stride ${stride}: y, dx and dW equal the reference; W needs x and dy`, async () => {
    const shape = { samples: 2, height: 8, width: 4, inputs, outputs, size, stride };
    await check({
      layer: conv2d("c", inputs, outputs, { size, stride }),
      inputShape: [2, 8, 4, inputs],
      reference: (x, p) => convolve(x, p.get("c.weight")!, shape),
      keeps: ["x", "dy"],
    });
  });
}

for (const channels of [5, 64]) {
  test(`BatchNorm of ${channels} channels: y, dx and all gradients equal the reference; W needs sums of I's and no more`, async () => {
    await check({
      layer: batchNorm("n", channels),
      inputShape: [2, 3, 2, channels],
      reference: (x, p) => batchNormOf(x, p.get("n.weight")!, p.get("n.bias")!).y,
      keeps: ["dgain", "dbias"],
    });
  });
}

test("BatchNorm with ReLU: y, dx and all gradients equal the reference; W needs sums of I's and no more", async () => {
  await check({
    layer: batchNorm("n", 8, { relu: true }),
    inputShape: [2, 3, 2, 8],
    reference: (x, p) => batchNormOf(x, p.get("n.weight")!, p.get("n.bias")!).y.map((value) => Math.max(value, 0)),
    keeps: ["dgain", "dbias"],
  });
});

test("BatchNorm moves its running statistics on once for each micro-batch, as PyTorch does", async () => {
  const layer = batchNorm("n", 5);
  const [mean, variance] = layer.buffers!;
  assert.deepEqual([mean.name, variance.name], ["n.running_mean", "n.running_var"]);
  const look = async (placed: Placed) => {
    // The three micro-batches that checkLayer makes.
    let expected: { mean: ArrayLike<number>; variance: ArrayLike<number> } = {
      mean: new Float64Array(5),
      variance: new Float64Array(5).fill(1),
    };
    const ones = new Float64Array(5).fill(1);
    for (const index of [0, 1, 2]) {
      expected = updateRunning(expected, batchNormOf(normal(60, 10 + index), ones, ones), 12);
    }
    const [actualMean, actualVariance] = [mean, variance].map((buffer) => toArray(placed.state(buffer).value));
    (await actualMean).forEach((value, c) => assert.ok(Math.abs(value - expected.mean[c]) < 1e-6));
    (await actualVariance).forEach((value, c) => assert.ok(Math.abs(value - expected.variance[c]) < 1e-6));
  };
  await check({
    layer,
    inputShape: [2, 3, 2, 5],
    reference: (x, p) => batchNormOf(x, p.get("n.weight")!, p.get("n.bias")!).y,
    keeps: ["dgain", "dbias"],
    look,
  });
});

test("ReLU: y and dx equal the reference; nothing is kept after I", async () => {
  await check({
    layer: relu(),
    inputShape: [2, 3, 2, 5],
    reference: (x) => Float64Array.from(x, (value) => Math.max(value, 0)),
    keeps: [],
  });
});

test("max and average pooling: y and dx equal the reference; nothing is kept after I", async () => {
  const shape = [2, 7, 5, 3], window = { size: 3, stride: 2, padding: 1 };
  await check({
    layer: maxPool(window),
    inputShape: shape,
    reference: (x) => maxPoolOf(x, shape, window).y,
    keeps: [],
  });
  await check({ layer: averagePool(), inputShape: shape, reference: (x) => averagePoolOf(x, shape), keeps: [] });
});

test("a connection around a bottleneck, as it is and projected: y, dx and all gradients equal the reference", async () => {
  const plus = (a: ArrayLike<number>, b: ArrayLike<number>) => Float64Array.from(a, (value, i) => value + b[i]);
  const norm = (x: ArrayLike<number>, p: ReadonlyMap<string, ArrayLike<number>>, name: string) =>
    batchNormOf(x, p.get(`${name}.weight`)!, p.get(`${name}.bias`)!).y;
  for (const stride of [1, 2]) {
    const body = sequential([
      conv2d("a", 4, 2, { size: 1 }),
      batchNorm("na", 2),
      conv2d("b", 2, 4, { size: 3, stride }),
      batchNorm("nb", 4),
    ]);
    const projected = stride > 1 ? sequential([conv2d("d", 4, 4, { size: 1, stride }), batchNorm("nd", 4)]) : undefined;
    const image = { samples: 2, height: 4, width: 6 };
    await check({
      layer: shortcut(body, projected),
      inputShape: [2, 4, 6, 4],
      reference(x, p) {
        const narrow = convolve(x, p.get("a.weight")!, { ...image, inputs: 4, outputs: 2, size: 1, stride: 1 });
        const wide = { ...image, inputs: 2, outputs: 4, size: 3, stride };
        const through = norm(convolve(norm(narrow, p, "na"), p.get("b.weight")!, wide), p, "nb");
        if (stride === 1) return plus(through, x);
        const around = convolve(x, p.get("d.weight")!, { ...image, inputs: 4, outputs: 4, size: 1, stride });
        return plus(through, norm(around, p, "nd"));
      },
      keeps: [
        ...["0.x", "0.dy", "1.dgain", "1.dbias", "2.x", "2.dy", "3.dgain", "3.dbias"].map((name) => `body.${name}`),
        ...stride > 1 ? ["0.x", "0.dy", "1.dgain", "1.dbias"].map((name) => `projection.${name}`) : [],
      ],
    });
  }
});

test("a connection with ReLU around a normalised convolution and around a bare one: all gradients equal the reference", async () => {
  const image = { samples: 2, height: 4, width: 3, inputs: 4, outputs: 4, size: 3, stride: 1 };
  for (const bare of [false, true]) {
    const convolution = conv2d("a", 4, 4, { size: 3 });
    await check({
      layer: shortcut(bare ? convolution : sequential([convolution, batchNorm("n", 4)]), undefined, {
        relu: true,
      }),
      inputShape: [2, 4, 3, 4],
      reference(x, p) {
        const y = convolve(x, p.get("a.weight")!, image);
        const through = bare ? y : batchNormOf(y, p.get("n.weight")!, p.get("n.bias")!).y;
        return Float64Array.from(through, (value, i) => Math.max(value + x[i], 0));
      },
      keeps: bare ? ["body.x", "body.dy"] : ["0.x", "0.dy", "1.dgain", "1.dbias"].map((name) => `body.${name}`),
    });
  }
});

test("the first layer of stage 0 computes no input gradient of an image, and its weight gradients are the same", async () => {
  const layers = [
    conv2d("c", 3, 4, { size: 3 }),
    batchNorm("n", 3),
    shortcut(conv2d("s", 3, 3, { size: 3 })),
  ];
  for (const layer of layers) {
    await checkSkippedInputGradient(await device(), layer, [2, 4, 4, 3]);
  }
});

test("BatchNorm refuses one value a channel, through every layer that it may be in", () => {
  const norm = batchNorm("n", 4), plain = relu();
  const identity = () => conv2d("c", 4, 4, { size: 1 });
  const stacks: Record<string, Layer> = {
    alone: norm,
    sequential: sequential([plain, norm, plain]),
    "sequential in sequential": sequential([plain, sequential([identity(), norm])]),
    "shortcut's body": shortcut(norm),
    "shortcut's projection": shortcut(identity(), norm),
    "pre-norm's norm": preNorm(norm as ResidualNorm, plain),
    "pre-norm's inside": preNorm(plain as ResidualNorm, norm),
    "post-norm's norm": postNorm(plain, norm),
    "post-norm's inside": postNorm(norm, plain),
    recomputed: recomputed(sequential([identity(), norm]), "both"),
    "recomputed in a shortcut": shortcut(recomputed(sequential([norm, identity()]), "activations")),
  };
  for (const [where, layer] of Object.entries(stacks)) {
    for (const shape of where === "alone" ? [[1, 1, 1, 4], [1, 4]] : [[1, 1, 1, 4]]) {
      assert.throws(() => layer.outputShape(shape), {
        name: "UserError",
        message:
          `n: batch normalisation over [${shape}] needs at least 2 values a channel, and there is 1, whose deviation ` +
          "is 0: micro-batches of more samples or larger images have more",
      }, where);
    }
    for (const shape of [[2, 1, 1, 4], [1, 1, 2, 4]]) assert.deepEqual(layer.outputShape(shape), shape, where);
  }
});

test("connections are refused around layers that change the shape", () => {
  const wider = conv2d("c", 4, 5, { size: 1 }), plain = relu();
  for (const layer of [shortcut(wider), preNorm(plain as ResidualNorm, wider), postNorm(wider, plain)]) {
    assert.throws(() => layer.outputShape([1, 2, 2, 4]), {
      name: "UserError",
      message: /^A connection adds \[1,2,2,[45]\] and \[1,2,2,[45]\]; the two must have one shape$/,
    });
  }
  assert.deepEqual(shortcut(wider, conv2d("p", 4, 5, { size: 1 })).outputShape([1, 2, 2, 4]), [1, 2, 2, 5]);
});
