import assert from "node:assert/strict";
import { after, test } from "node:test";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { adamw, lion, type OptimizerSpec, sgd } from "../../lib/train/optimizers.ts";
import { release, toArray } from "../../lib/tensor.ts";
import * as reference from "../reference/optimizers.ts";
import { assertClose, close, device, dirty, normal, tensor } from "./support.ts";

after(close);

const count = 1003, decayed = 601;
const rates = [0.01, 0.01, 0.003, 0.02, 0.01];

for (const momentum of [0, 0.9]) {
  test(`sgd() with momentum ${momentum} follows the float64 reference over ${rates.length} steps`, async () => {
    const on = await device();
    const parameters = tensor(on, [count], normal(count, 1)), gradients = tensor(on, [count], new Float32Array(count));
    const optimizer = sgd({ learningRate: 0.01, momentum }).create(parameters, gradients, decayed);
    const expected = Float64Array.from(normal(count, 1)), velocity = new Float64Array(count);
    for (const [step, rate] of rates.entries()) {
      const gradient = normal(count, 2 + step);
      on.write(gradients, gradient);
      optimizer.prepare(rate === 0.01 ? undefined : rate);
      optimizer.step();
      optimizer.commit();
      reference.sgd(expected, velocity, gradient, rate, momentum);
      assertClose(await toArray(parameters), expected, 1e-6, `step ${step}`);
      assert.ok((await toArray(gradients)).every((value) => value === 0), "gradients are zero after a step");
    }
  });
}

test(`adamw() follows the float64 reference over ${rates.length} steps, with a part that is not decayed`, async () => {
  const on = await device();
  const parameters = tensor(on, [count], normal(count, 1)), gradients = tensor(on, [count], new Float32Array(count));
  const options = { learningRate: 0.01, betas: [0.8, 0.95] as [number, number], epsilon: 1e-6, weightDecay: 0.3 };
  const optimizer = adamw(options).create(parameters, gradients, decayed);
  const expected = Float64Array.from(normal(count, 1));
  const state = { ...options, mean: new Float64Array(count), square: new Float64Array(count), steps: 0 };
  for (const [step, rate] of rates.entries()) {
    const gradient = normal(count, 2 + step);
    on.write(gradients, gradient);
    optimizer.prepare(rate === 0.01 ? undefined : rate);
    optimizer.step();
    optimizer.commit();
    state.learningRate = rate;
    reference.adamw(expected, gradient, decayed, state);
    assertClose(await toArray(parameters), expected, 1e-6, `step ${step}`);
    assert.ok((await toArray(gradients)).every((value) => value === 0), "gradients are zero after a step");
  }
});

const settings = { learningRate: 0.01, betas: [0.9, 0.99] as [number, number], epsilon: 1e-8, weightDecay: 0.1 };
const zeros = () => new Float64Array(count);
const fifty: { name: string; spec: OptimizerSpec; update(): (p: Float64Array, g: Float32Array) => void }[] = [
  {
    name: "sgd() with momentum",
    spec: sgd({ learningRate: 0.01, momentum: 0.9 }),
    update() {
      const velocity = zeros();
      return (parameters, gradient) => reference.sgd(parameters, velocity, gradient, 0.01, 0.9);
    },
  },
  {
    name: "adamw()",
    spec: adamw(settings),
    update() {
      const state = { ...settings, mean: zeros(), square: zeros(), steps: 0 };
      return (parameters, gradient) => reference.adamw(parameters, gradient, decayed, state);
    },
  },
  {
    name: "lion()",
    spec: lion({ learningRate: 0.01, betas: [0.9, 0.99], weightDecay: 0.1 }),
    update() {
      const state = { ...settings, mean: zeros() };
      return (parameters, gradient) => reference.lion(parameters, gradient, decayed, state);
    },
  },
];
for (const { name, spec, update } of fifty) {
  test(`${name} follows the float64 reference over 50 steps`, async () => {
    const on = await device();
    const parameters = tensor(on, [count], normal(count, 1)), gradients = tensor(on, [count], new Float32Array(count));
    const optimizer = spec.create(parameters, gradients, decayed);
    const expected = Float64Array.from(normal(count, 1)), advance = update();
    for (let step = 0; step < 50; step++) {
      // Some always 0, as those of tokens that do not occur: nothing but decay moves their parameters.
      const gradient = normal(count, 100 + step).map((value, i) => i % 7 === 0 ? 0 : value);
      on.write(gradients, gradient);
      optimizer.prepare();
      optimizer.step();
      optimizer.commit();
      advance(expected, gradient);
    }
    await assertClose(await toArray(parameters), expected, 3e-6, name);
    optimizer.release();
    release(parameters, gradients);
  });
}

test("in mixed precision an optimizer unscales the gradients and writes an f16 copy of its f32 parameters", async (t) => {
  const on = await device();
  if (!on.gpu.info.f16) return t.skip("this device has no f16");
  const lossScale = 2 ** 12;
  for (const spec of [sgd({ learningRate: 0.01 }), sgd({ learningRate: 0.01, momentum: 0.9 }), adamw(), lion()]) {
    const [plain, master] = [tensor(on, [count], normal(count, 1)), tensor(on, [count], normal(count, 1))];
    const copy = dirty(on, [count], "f16");
    const gradients = tensor(on, [count], new Float32Array(count));
    const [one, other] = [spec.create(plain, gradients, decayed), spec.create(master, gradients, decayed, copy)];
    for (let step = 0; step < 3; step++) {
      const gradient = normal(count, 2 + step);
      on.write(gradients, gradient);
      one.prepare();
      one.step();
      one.commit();
      on.write(gradients, gradient.map((value) => lossScale * value)); // exact: a power of two
      other.prepare(undefined, lossScale);
      other.step();
      other.commit();
      const values = await toArray(master);
      assert.deepEqual(values, await toArray(plain));
      assert.deepEqual(await toArray(copy), fromHalf(toHalf(values)));
      assert.ok((await toArray(gradients)).every((value) => value === 0), "gradients are zero after a step");
    }
    one.release();
    other.release();
    release(plain, master, copy, gradients);
  }
});

test("an update that was prepared and never counted leaves nothing to the next: its rate is written anew", async () => {
  const on = await device();
  const parameters = tensor(on, [count], normal(count, 1)), gradients = tensor(on, [count], new Float32Array(count));
  const optimizer = sgd({ learningRate: 0.01 }).create(parameters, gradients, decayed);
  const expected = Float64Array.from(normal(count, 1));
  for (const given of [undefined, 0.5, undefined]) {
    const gradient = normal(count, 2);
    on.write(gradients, gradient);
    optimizer.prepare(given);
    if (given !== undefined) continue; // the step failed
    optimizer.step();
    optimizer.commit();
    reference.sgd(expected, new Float64Array(count), gradient, 0.01, 0);
    assertClose(await toArray(parameters), expected, 1e-6, "after a step");
  }
  optimizer.release();
  release(parameters, gradients);
});

test("an optimizer starts from zero moments in reused memory and gives all of it back", async () => {
  const on = await device();
  const parameters = tensor(on, [8], new Float32Array(8)), gradients = tensor(on, [8], new Float32Array(8).fill(1));
  const before = on.ledger.live.optimizer;
  for (let round = 0; round < 2; round++) {
    const optimizer = adamw({ learningRate: 0.5, weightDecay: 0 }).create(parameters, gradients, 0);
    assert.equal(on.ledger.live.optimizer - before, 3 * 256); // two moments and the scalars
    on.write(parameters, new Float32Array(8));
    on.write(gradients, new Float32Array(8).fill(3));
    optimizer.prepare();
    optimizer.step(); // Adam's first step is the learning rate, whatever the gradient
    optimizer.commit();
    assertClose(await toArray(parameters), new Float32Array(8).fill(-0.5), 1e-6);
    optimizer.release();
    assert.equal(on.ledger.live.optimizer, before);
  }
  release(parameters, gradients);
});

test("adamw() rejects gradients of another length", async () => {
  const on = await device();
  const parameters = tensor(on, [8], normal(8, 1)), gradients = tensor(on, [7], normal(7, 1));
  assert.throws(() => adamw().create(parameters, gradients, 0), /gradients \[7\] .* do not fit parameters \[8\]/);
});
