import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { release, sizeOf, type Tensor, toArray } from "../../lib/tensor.ts";
import { muon } from "../../lib/train/muon.ts";
import { adamw, type OptimizerSpec, sgd } from "../../lib/train/optimizers.ts";
import * as reference from "../reference/optimizers.ts";
import { assertClose, close, device, dirty, normal, tensor } from "./support.ts";

after(close);

/** Parameters as a stage has them: each from a multiple of 128 elements on, matrices first, and 0 in between. */
function blockOf(shapes: readonly (readonly number[])[]) {
  let end = 0;
  const placed = shapes.map((shape) => {
    const start = end;
    end += Math.ceil(sizeOf(shape) / 128) * 128;
    return { shape, start };
  });
  const decayed = placed.find(({ shape }) => shape.length === 1)?.start ?? end;
  const flat = (values: readonly ArrayLike<number>[]) => {
    const all = new Float32Array(end);
    placed.forEach(({ start }, index) => all.set(values[index], start));
    return all;
  };
  const parts = (all: Float32Array) => placed.map(({ shape, start }) => all.slice(start, start + sizeOf(shape)));
  return { placed, decayed, count: end, flat, parts };
}

async function fiftySteps(
  spec: OptimizerSpec,
  shapes: readonly (readonly number[])[],
  start: readonly Float32Array[],
  gradientsOf: (step: number) => readonly Float32Array[],
  steps = 50,
): Promise<Float32Array[]> {
  const on = await device(), block = blockOf(shapes);
  const parameters = tensor(on, [block.count], block.flat(start));
  const gradients = tensor(on, [block.count], new Float32Array(block.count));
  const before = on.ledger.total();
  const optimizer = spec.create(parameters, gradients, block.decayed, undefined, block.placed);
  for (let step = 0; step < steps; step++) {
    on.write(gradients, block.flat(gradientsOf(step)));
    optimizer.prepare();
    optimizer.step();
    optimizer.commit();
    if (step === 0) {
      assert.ok((await toArray(gradients)).every((value) => value === 0), "gradients are zero after a step");
    }
  }
  const all = await toArray(parameters);
  optimizer.release();
  assert.equal(on.ledger.total(), before);
  release(parameters, gradients);
  const parts = block.parts(all);
  assert.deepEqual(all, block.flat(parts), "what lies between parameters stays 0");
  return parts;
}

test("muon() follows the float64 reference over 50 steps: wide, tall and square matrices, and gains by AdamW", async () => {
  const shapes = [[24, 10], [10, 24], [17, 17], [3, 3, 2, 5], [1, 7], [13]];
  const start = shapes.map((shape, index) => normal(sizeOf(shape), index));
  const gradientsOf = (step: number) => shapes.map((shape, index) => normal(sizeOf(shape), 100 * step + index + 10));
  const options = { learningRate: 0.01, momentum: 0.9, weightDecay: 0.1 };
  const others = { learningRate: 0.02, betas: [0.8, 0.95] as [number, number], epsilon: 1e-6, weightDecay: 0.3 };
  const actual = await fiftySteps(muon({ ...options, others }), shapes, start, gradientsOf);
  for (const [index, shape] of shapes.entries()) {
    const expected = Float64Array.from(start[index]), zeros = () => new Float64Array(expected.length);
    const columns = shape[shape.length - 1], state = { ...options, mean: zeros() };
    const gain = { ...others, mean: zeros(), square: zeros(), steps: 0 };
    for (let step = 0; step < 50; step++) {
      const gradient = gradientsOf(step)[index];
      if (shape.length === 1) reference.adamw(expected, gradient, 0, gain);
      else reference.muon(expected, gradient, [expected.length / columns, columns], state);
    }
    assertClose(actual[index], expected, 2e-5, `[${shape}]`);
  }
});

interface Fixture {
  shapes: number[][];
  steps: number;
  sgd: number[][];
  adamw: number[][];
  muon: number[][];
}
const fixture: Fixture = JSON.parse(readFileSync(new URL("../fixtures/optimizers.json", import.meta.url), "utf8"));
const betas = [0.9, 0.99] as [number, number];
const specs: [name: "sgd" | "adamw" | "muon", OptimizerSpec][] = [
  ["sgd", sgd({ learningRate: 0.01, momentum: 0.9 })],
  ["adamw", adamw({ learningRate: 0.01, betas, weightDecay: 0.1 })],
  ["muon", muon({ learningRate: 0.01, momentum: 0.9, weightDecay: 0.1 })],
];
for (const [name, spec] of specs) {
  test(`${name}() makes of two matrices in 50 steps what PyTorch makes of them`, async () => {
    const { shapes, steps } = fixture;
    const start = shapes.map((shape) => Float32Array.from({ length: sizeOf(shape) }, (_, i) => Math.cos(i)));
    const gradientsOf = (step: number) =>
      shapes.map((shape) =>
        Float32Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin(0.7 * (i + 1) * (step + 1)))
      );
    const actual = await fiftySteps(spec, shapes, start, gradientsOf, steps);
    actual.forEach((values, index) => assertClose(values, Float64Array.from(fixture[name][index]), 3e-5, `${index}`));
  });
}

test("in mixed precision muon() unscales the gradients and writes an f16 copy of its f32 parameters", async (t) => {
  const on = await device();
  if (!on.gpu.info.f16) return t.skip("this device has no f16");
  const block = blockOf([[9, 5], [6, 14], [11]]), lossScale = 2 ** 12, spec = muon();
  const masters = [0, 1].map(() =>
    tensor(on, [block.count], block.flat([normal(45, 1), normal(84, 2), normal(11, 3)]))
  );
  const copy = tensor(on, [block.count], new Float32Array(block.count), "f16");
  const gradients = tensor(on, [block.count], new Float32Array(block.count));
  const create = (master: Tensor, half?: Tensor) => spec.create(master, gradients, block.decayed, half, block.placed);
  const one = create(masters[0]), other = create(masters[1], copy);
  for (let step = 0; step < 3; step++) {
    const gradient = block.flat([45, 84, 11].map((count, index) => normal(count, 10 * step + index)));
    on.write(gradients, gradient);
    one.prepare();
    one.step();
    one.commit();
    on.write(gradients, gradient.map((value) => lossScale * value));
    other.prepare(undefined, lossScale);
    other.step();
    other.commit();
    const values = await toArray(masters[1]);
    assert.deepEqual(values, await toArray(masters[0]));
    assert.deepEqual(await toArray(copy), fromHalf(toHalf(values)));
  }
  one.release();
  other.release();
  release(...masters, copy, gradients);
});

test("a gradient of zeros moves a matrix by its decay alone, from reused memory too", async () => {
  const on = await device();
  for (let round = 0; round < 2; round++) {
    release(dirty(on, [128]), dirty(on, [64]));
    const start = normal(30, 4);
    const [actual] = await fiftySteps(muon({ learningRate: 0.1 }), [[5, 6]], [start], () => [new Float32Array(30)], 1);
    assertClose(actual, Float64Array.from(start, (value) => value * (1 - 0.1 * 0.1)), 1e-6);
  }
});

test("a step's own learning rate is that of matrices, and moves the others in proportion", async () => {
  const shapes = [[6, 5], [9]], start = [normal(30, 1), normal(9, 2)], gradients = [normal(30, 3), normal(9, 4)];
  const run = async (spec: OptimizerSpec, rate?: number) => {
    const on = await device(), block = blockOf(shapes);
    const parameters = tensor(on, [block.count], block.flat(start));
    const given = tensor(on, [block.count], block.flat(gradients));
    const optimizer = spec.create(parameters, given, block.decayed, undefined, block.placed);
    optimizer.prepare(rate);
    optimizer.step();
    const values = await toArray(parameters);
    optimizer.release();
    release(parameters, given);
    return values;
  };
  const quarter = await run(muon({ learningRate: 0.01, others: { learningRate: 0.02 } }));
  assert.deepEqual(await run(muon({ learningRate: 0.04, others: { learningRate: 0.08 } }), 0.01), quarter);
  // Where matrices stand still, the step's rate is that of the others, which must not be lost.
  const still = muon({ learningRate: 0, others: { learningRate: 0.02 } }), { flat, parts } = blockOf(shapes);
  assert.deepEqual(await run(still, 0), flat(start));
  const [matrix, others] = parts(await run(still, 0.01));
  assert.deepEqual(matrix, parts(flat(start))[0]);
  assert.deepEqual(others, parts(await run(muon({ others: { learningRate: 0.01 } })))[1]);
});

test("settings of muon() that make no sense are refused", () => {
  assert.throws(
    () => muon({ momentum: 1 }),
    /^UserError: muon: momentum must be a number, 0 or more and below 1, not 1$/,
  );
  assert.throws(() => muon({ learningRate: -1 }), /^UserError: muon: learningRate must be/);
  assert.throws(() => muon({ lr: 1 } as never), /^UserError: muon: there is no "lr"/);
  assert.throws(() => muon({ others: { match: "head" as never } }), /^UserError: muon: others.match must be a RegExp/);
  assert.throws(() => muon({ others: { weight: 1 } as never }), /^UserError: adamw: there is no "weight"/);
});
