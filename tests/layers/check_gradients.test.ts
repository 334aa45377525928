/** checkGradients() passes what is right, and names what is wrong: layers with one mistake each. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { checkGradients, type CheckOptions, type GradientReport } from "../../lib/layers/check_gradients.ts";
import { stateBuffer } from "../../lib/layers/buffers.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { parameter } from "../../lib/layers/parameter.ts";
import { linear } from "../../lib/layers/linear.ts";
import { recomputed } from "../../lib/layers/recompute.ts";
import { relu } from "../../lib/layers/relu.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { selfAttention } from "../../lib/layers/attention.ts";
import { kernel } from "../../lib/gpu/kernel.ts";
import { add, fill, scale } from "../../lib/ops/elementwise.ts";
import { packIds } from "../../lib/ops/embedding.ts";
import { matmul } from "../../lib/ops/matmul.ts";
import { addBias } from "../../lib/ops/bias.ts";
import { empty, type Tensor } from "../../lib/tensor.ts";
import { gradientTable, keptTable } from "../../lib/report/gradients.ts";
import { close, device, tokens } from "../ops/support.ts";
import { layers, size, vocabulary } from "./every.ts";

after(close);

/** What is wrong in a report, as "f16 W adds to the gradients". */
function wrong({ rows }: GradientReport): string[] {
  return rows.filter(({ ok }) => !ok).map(({ precision, check }) => `${precision} ${check}`);
}

async function check(layer: Layer, shape: readonly number[], options: CheckOptions = {}): Promise<GradientReport> {
  return await checkGradients(layer, shape, { device: await device(), ...options });
}

const ids = (microbatch: number) => packIds(tokens(size.R, vocabulary, microbatch));

for (const [name, [layer, shape]] of Object.entries(layers)) {
  test(`${name} is right`, async () => {
    const report = await check(layer, shape, name === "embedding" ? { input: ids, width: 2 } : { width: 2 });
    assert.deepEqual(wrong(report), []);
    assert.equal(report.ok, true);
    assert.equal(report.rows.some(({ precision }) => precision === "f16"), (await device()).gpu.info.f16);
  });
}

test("layers with kinks, that recompute, and that read what is given from the side are right", async () => {
  const mlp = sequential([linear("up", 6, 9, { bias: true }), relu(), linear("down", 9, 6)]);
  assert.deepEqual(wrong(await check(mlp, [11, 6])), []);
  assert.deepEqual(wrong(await check(recomputed(mlp, "both"), [11, 6])), []);
  const options = { width: 8, heads: 2, length: 5, outputDeviation: 0.1, causal: false, padded: true, dropout: 0.2 };
  const sides = (microbatch: number) => ({ lengths: new Uint32Array([5 - microbatch, 2]) });
  assert.deepEqual(wrong(await check(selfAttention("a", options), [10, 8], { sides })), []);
});

/** What mistakes are made in. */
const projection = linear("l", 6, 5);
const [weight] = projection.parameters;
const shape = [9, 6];

const slope = {
  dx: "dx (of I) is that of F's differences",
  weight: "the gradient of l.weight (of W) is that of F's differences",
};
const adds = "W adds to the gradients";
const both = (check: string) => [`f32 ${check}`, `f16 ${check}`];

/** A state that forwards are counted in, by a parameter that is about 1. */
const count = stateBuffer("l.count", [1], "zeros"), one = parameter("l.one", [1], "ones");

/** Mistakes: what they change in {@link projection}, and what must be among the rows that do not hold, or be all of them. */
const mistakes: Readonly<Record<string, { change: Partial<Layer>; found: readonly string[]; alone?: boolean }>> = {
  "dx has the wrong sign": {
    change: {
      backwardInput(dx, dy, saved) {
        saved.keep("dy", dy);
        if (dx) matmul(dx, dy, saved.value(weight), { transposeB: true, scale: -1 });
      },
    },
    found: [`f32 ${slope.dx}`],
    alone: true,
  },
  "a gradient is 1 % too large": {
    change: { backwardWeight: (saved) => addTo(saved, 1.01) },
    found: [`f32 ${slope.weight}`],
    alone: true,
  },
  "W overwrites": {
    change: {
      backwardWeight(saved) {
        for (const each of saved) matmul(each.gradient(weight), each.get("x"), each.get("dy"), { transposeA: true });
      },
    },
    found: [...both(adds), ...both("B gives what I and W give")],
  },
  "dx is added": {
    change: {
      backwardInput(dx, dy, saved) {
        saved.keep("dy", dy);
        if (dx) matmul(dx, dy, saved.value(weight), { transposeB: true, accumulate: true });
      },
    },
    found: both("dx is written, whatever was there"),
    alone: true,
  },
  "y is added": {
    change: {
      forward(y, x, saved) {
        saved.keep("x", x);
        matmul(y, x, saved.value(weight), { accumulate: true });
      },
    },
    found: both("y is written, whatever was there"),
  },
  "W of two takes the first twice": {
    change: {
      backwardWeight: (saved) => addTo(saved.length === 2 ? [saved[0], saved[0]] : saved),
    },
    found: both("W of 2 micro-batches gives the sum of their gradients"),
    alone: true,
  },
  "W takes it that slots are neighbours": {
    change: {
      backwardWeight(saved) {
        const { device } = saved[0], rows = 9 * saved.length;
        // As if they were: those of a group of several are 256 bytes apart, and 9 rows of 5 or 6 are fewer.
        const all = (name: string): Tensor => {
          const first = saved[0].get(name), width = first.shape[1];
          const bytes = Math.min(rows * width * 4, first.storage.bytes);
          return { ...first, device, bytes, shape: [Math.floor(bytes / width / 4), width] };
        };
        const [x, dy] = [all("x"), all("dy")], shared = Math.min(x.shape[0], dy.shape[0]);
        const part = (tensor: Tensor) => ({ ...tensor, shape: [shared, tensor.shape[1]] });
        matmul(saved[0].gradient(weight), part(x), part(dy), { transposeA: true, accumulate: true });
      },
    },
    found: ["f32 W of 2 micro-batches gives the sum of their gradients"],
  },
  "a full backward forgets W": {
    change: { backwardWeight: (saved) => saved[0].delayed ? addTo(saved) : undefined },
    found: both("B gives what I and W give"),
    alone: true,
  },
  "without dx, dy is not looked at": {
    change: {
      backwardInput(dx, dy, saved) {
        if (dx) return projection.backwardInput(dx, dy, saved);
        const none = saved.scratch(dy.shape, dy.dtype);
        fill(none, 0);
        saved.keep("dy", none);
      },
    },
    found: both("without dx the gradients are the same"),
    alone: true,
  },
  "I adds the gradients": {
    change: {
      backwardInput(dx, dy, saved) {
        projection.backwardInput(dx, dy, saved);
        addTo([saved]);
      },
      backwardWeight: () => {},
    },
    found: both("I leaves the parameters' gradients as they are"),
  },
  "x is written over": {
    change: {
      forward(y, x, saved) {
        projection.forward(y, x, saved);
        fill(x, 0.5);
      },
    },
    found: both("x and dy are read only"),
  },
  "x is used and not kept": {
    change: (() => {
      const inputs = new WeakMap<object, Tensor>();
      return {
        forward(y, x, saved) {
          inputs.set(saved, x);
          matmul(y, x, saved.value(weight));
        },
        backwardWeight(saved) {
          for (const each of saved) {
            matmul(each.gradient(weight), inputs.get(each)!, each.get("dy"), { transposeA: true, accumulate: true });
          }
        },
      } satisfies Partial<Layer>;
    })(),
    found: both("what is used later is kept"),
  },
  "numbers differ from time to time": {
    change: {
      forward(y, x, saved) {
        saved.keep("x", x);
        matmul(y, x, saved.value(weight), { scale: 1 + Math.random() });
      },
    },
    found: both("the same numbers come each time"),
  },
  "state is moved on when F is recomputed": {
    change: {
      buffers: [count],
      reads: { input: true, gradient: true },
      forward(y, x, saved) {
        projection.forward(y, x, saved);
        const before = saved.scratch([1]);
        scale(before, saved.state(count), 1);
        add(saved.state(count), before, saved.value(one));
      },
      parameters: [weight, one],
    },
    found: both("recomputed, it gives the same"),
  },
  "it is wrong in f16 alone": {
    change: { backwardWeight: (saved) => addTo(saved, saved[0].get("x").dtype === "f16" ? 1.1 : 1) },
    found: ["f16 the gradients are those of f32"],
    alone: true,
  },
  "F keeps what nobody reads": {
    change: {
      forward(y, x, saved) {
        projection.forward(y, x, saved);
        saved.keep("copy", y);
      },
      backwardInput(dx, dy, saved) {
        projection.backwardInput(dx, dy, saved);
        saved.drop("copy");
      },
      reads: { input: true, gradient: true },
    },
    found: ["f32 I or W reads all that F keeps"],
    alone: true,
  },
  "I leaves what W does not read": {
    change: {
      backwardInput(dx, dy, saved) {
        projection.backwardInput(dx, dy, saved);
        const norms = saved.scratch([9]);
        fill(norms, 1);
        saved.keep("norms", norms);
      },
    },
    found: ["f32 W reads all that I leaves", "f32 nothing else than x and dy is kept"],
    alone: true,
  },
  "`reads` says of W what it does not do": {
    change: {
      backwardInput(dx, dy, saved) {
        projection.backwardInput(dx, dy, saved);
        const copy = saved.scratch(dy.shape, dy.dtype, "derivatives");
        scale(copy, dy, 1);
        saved.drop("dy");
        saved.keep("dy", copy);
      },
      reads: { input: true, gradient: true },
    },
    found: ["f32 what `reads` says of W is kept for it"],
    alone: true,
  },
};

for (const [index, name] of (["F", "I", "W"] as const).entries()) {
  const forget = ({ device }: { device: Device }) => void empty(device, [index + 1], "workspace");
  const change: Partial<Layer> = {
    F: {
      forward(y: Tensor, x: Tensor, saved: Parameters<Layer["forward"]>[2]) {
        projection.forward(y, x, saved);
        forget(saved);
      },
    },
    I: {
      backwardInput(dx: Tensor | undefined, dy: Tensor, saved: Parameters<Layer["forward"]>[2]) {
        projection.backwardInput(dx, dy, saved);
        forget(saved);
      },
    },
    W: {
      backwardWeight(saved: Parameters<NonNullable<Layer["backwardWeight"]>>[0]) {
        addTo(saved);
        forget(saved[0]);
      },
    },
  }[name];
  Object.assign(mistakes, {
    [`${name} forgets a release`]: { change, found: both(`${name} gives back what it takes`), alone: true },
  });
}

/** What the W of the projection does, perhaps not quite. */
function addTo(saved: Parameters<NonNullable<Layer["backwardWeight"]>>[0], factor = 1) {
  for (const each of saved) {
    const options = { transposeA: true, accumulate: true, scale: factor };
    matmul(saved[0].gradient(weight), each.get("x"), each.get("dy"), options);
  }
}

for (const [name, { change, found, alone = false }] of Object.entries(mistakes)) {
  test(`a layer is found out where ${name}`, async () => {
    const on = await device(), before = on.ledger.total();
    const report = await check({ ...projection, ...change }, shape);
    const expected = found.filter((each) => on.gpu.info.f16 || !each.startsWith("f16"));
    const rows = wrong(report);
    if (alone) assert.deepEqual(rows.sort(), [...expected].sort());
    for (const each of expected) assert.ok(rows.includes(each), `${each}: not among ${rows.join(", ")}`);
    assert.equal(report.ok, expected.length === 0);
    assert.equal(on.ledger.total(), before, "whatever the layer forgets");
  });
}

test("the error is as large as the mistake, and is found where it is", async () => {
  const layer: Layer = {
    ...projection,
    backwardWeight(saved) {
      addTo(saved);
      const { device } = saved[0], gradient = saved[0].gradient(weight);
      // One element, 29: [5, 4].
      device.dispatch(
        kernel({
          entry: "spoil",
          wgsl: `@group(0) @binding(0) var<storage, read_write> gradient: array<f32>;
            @compute @workgroup_size(1) fn spoil() { gradient[28] += 1000.0; gradient[29] += 2000.0; }`,
        }),
        undefined,
        [gradient],
        [1],
      );
    },
  };
  const { rows } = await check(layer, shape, { halves: false });
  const { error, where } = rows.find((each) => each.check === slope.weight)!;
  assert.match(where, /^l\.weight\[5, 4\] is (1999|2000|1998)[.\d]* where -?\d/);
  assert.ok(error > 50, `${error}`);

  const scaled: Layer = { ...projection, backwardWeight: (saved) => addTo(saved, 1.01) };
  const row = (await check(scaled, shape, { halves: false })).rows.find((each) => each.check === slope.weight)!;
  assert.ok(Math.abs(row.error - 0.01) < 1e-4, `${row.error}`);
});

test("a large tensor that is wrong in few places is found out along a direction", async () => {
  const bias = linear("l", 60, 50);
  const layer: Layer = {
    ...bias,
    backwardInput(dx, dy, saved) {
      bias.backwardInput(dx, dy, saved);
      if (dx) fill({ ...dx, bytes: 3 * 240, shape: [3, 60], offset: dx.offset + 15 * 256 }, 0); // rows 16 to 18
    },
  };
  const rows = wrong(await check(layer, [64, 60], { halves: false }));
  assert.ok(rows.includes("f32 dx (of I) is right along a random direction"), rows.join(", "));
});

test("x may be given, and is rounded to what f16 holds", async () => {
  const input = (microbatch: number) => Float32Array.from({ length: 54 }, (_, i) => Math.sin(i + microbatch) / 3);
  assert.deepEqual(wrong(await check(projection, shape, { input })), []);
});

test("a layer without a form for f16 makes a row of it, unless f16 is left out", async () => {
  const on = await device();
  if (!on.gpu.info.f16) return;
  const negate = kernel({
    entry: "negate",
    wgsl: `@group(0) @binding(0) var<storage, read_write> y: array<f32>;
      @group(0) @binding(1) var<storage, read> x: array<f32>;
      @compute @workgroup_size(64) fn negate(@builtin(global_invocation_id) id: vec3u) {
        if (id.x < arrayLength(&x)) { y[id.x] = -x[id.x]; }
      }`,
  });
  const layer: Layer = {
    parameters: [],
    reads: {},
    outputShape: (shape) => shape,
    flops: () => ({ f: 0, i: 0, w: 0 }),
    forward: (y, x) => x.device.dispatch(negate, undefined, [y, x], [1]),
    backwardInput: (dx, dy) => dx && dy.device.dispatch(negate, undefined, [dx, dy], [1]),
  };
  const report = await check(layer, [4, 5]);
  assert.deepEqual(wrong(report), ["f16 the layer runs in f16"]);
  assert.match(report.rows.at(-1)!.where, /^kernel "negate" has no f16 form of binding 0/);
  assert.deepEqual(wrong(await check(layer, [4, 5], { halves: false })), []);
});

test("what is kept is told, and printed", async () => {
  const report = await check(projection, shape, { halves: false });
  assert.deepEqual(report.afterForward.map(({ name, bytes, of }) => [name, bytes, of]), [["x", 256, "x"]]);
  assert.deepEqual(report.afterInput.map(({ name, bytes, category, of }) => [name, bytes, category, of]), [
    ["x", 256, "activations", "x"],
    ["dy", 256, "derivatives", "dy"],
  ]);
  assert.deepEqual(keptTable(report).rows.map((row) => row.join(" ")), [
    "F x [9, 6] f32 256 B activations",
    "I x [9, 6] f32 256 B activations",
    "I dy [9, 5] f32 256 B derivatives",
  ]);
  const { columns, rows } = gradientTable(report);
  assert.ok(rows.length === report.rows.length && rows.every((row) => row.length === columns.length));
  assert.deepEqual([...new Set(rows.map((row) => row[2]))], ["yes"]);
});

test("without a device it opens one of its own", async () => {
  assert.equal((await checkGradients(linear("l", 3, 2), [4, 3], { width: 1, halves: false })).ok, true);
});

test("what a layer throws comes through, and its memory is taken back", async () => {
  const on = await device(), before = on.ledger.total();
  const layer: Layer = { ...projection, forward: (y, _, saved) => add(y, saved.scratch([4]), y) };
  await assert.rejects(check(layer, shape), { name: "UserError", message: /^add: shape \[4\] does not fit/ });
  const bad: Layer = { ...projection, forward: (y, _, saved) => addBias(y, saved.scratch([4])) };
  await assert.rejects(check(bad, shape), { name: "UserError", message: /^addBias: bias is f32 \[4\]/ });
  assert.equal(on.ledger.total(), before);
});

test("what cannot be checked is refused in a line", async () => {
  const [dry] = dryDevices(1);
  const refused = async (message: RegExp, layer: unknown, shape: unknown, options: object = {}) => {
    await assert.rejects(checkGradients(layer as Layer, shape as number[], { device: dry, ...options }), {
      name: "UserError",
      message,
    });
  };
  await refused(/^checkGradients: the layer must be an object with outputShape\(\) and /, {}, [2, 3]);
  await refused(
    /^checkGradients: the shape must be a list of one or more, each a whole number, 1 or more/,
    projection,
    [0, 6],
  );
  await refused(/^checkGradients: there is no "widht"; there are device, /, projection, shape, { widht: 2 });
  await refused(/^checkGradients: width must be a whole number, 1 or more, not 0/, projection, shape, { width: 0 });
  await refused(/^checkGradients: device must be an object with /, projection, shape, { device: 3 });
  const padded = selfAttention("a", { width: 8, heads: 2, length: 5, outputDeviation: 0.1, padded: true });
  await refused(/reads the side input "lengths"; the option sides must give it/, padded, [10, 8]);
  await refused(/^checkGradients: a dry device computes nothing/, projection, shape);
  const input = () => new Float32Array(3);
  const none = { input: () => new Float32Array(54).fill(1e6) };
  await assert.rejects(
    check(projection, shape, none),
    /^UserError: checkGradients: input\(0\) must give a Uint32Array, or /,
  );
  await assert.rejects(check(projection, shape, { input }), /writeArray: shape \[9,6\] has 54 elements, the data 3/);
});
