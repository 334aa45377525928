import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { bert } from "../../lib/models/bert.ts";
import type { Model } from "../../lib/models/model.ts";
import type { OptimizerState } from "../../lib/runtime/optimizer_state.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { maskedTextSource } from "../../lib/train/data.ts";
import { muon } from "../../lib/train/muon.ts";
import { adamw, lion, type OptimizerSpec, sgd } from "../../lib/train/optimizers.ts";
import { aligned, randomBatch, tinyModel } from "./support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const schedule = generate("1f1b-1", { devices: 2 });

/** What an optimizer keeps after its first update, each by its name, of an element's gradient. */
type Kept = Readonly<Record<string, (g: number) => number>>;

const adams: Kept = { exp_avg: (g) => 0.2 * g, exp_avg_sq: (g) => 0.05 * g * g };
const muons: Kept = { momentum_buffer: (g) => 0.25 * g };

/** By their definitions, for each parameter by name. */
const firsts: readonly (readonly [OptimizerSpec, (name: string) => Kept])[] = [
  [sgd({ learningRate: 0.1 }), () => ({})],
  [sgd({ learningRate: 0.1, momentum: 0.5 }), () => ({ momentum_buffer: (g) => g })],
  [adamw({ betas: [0.8, 0.95] }), () => adams],
  [lion({ betas: [0.9, 0.75] }), () => ({ exp_avg: (g) => 0.25 * g })],
  [
    muon({ momentum: 0.75, others: { match: /head/, betas: [0.8, 0.95] } }),
    (name) => /norm|head/.test(name) ? adams : muons,
  ],
];

for (const [optimizer, keeps] of firsts) {
  const what = Object.keys(keeps("norm")).join(" and ") || "nothing";
  test(`the state of ${optimizer.name} has ${what} of each parameter, as its definition makes it of the gradients`, async () => {
    const pipeline = createPipeline(set, tinyModel(aligned), { optimizer, seed: 3 }), batch = randomBatch(aligned, 4);
    await pipeline.step(schedule, batch, { optimize: false });
    const gradients = await pipeline.gradients();
    await pipeline.step(schedule, batch);
    const { updates, values, lossScale } = await pipeline.optimizerState(), shapes = pipeline.optimizerShapes();
    assert.deepEqual([updates, lossScale], [1, undefined]);
    const expected = new Set<string>();
    for (const [name, gradient] of gradients) {
      for (const [moment, of] of Object.entries(keeps(name))) {
        const key = `${name}.${moment}`, found = values.get(key)!;
        expected.add(key);
        assert.equal(shapes.get(key)!.reduce((product, length) => product * length, 1), gradient.length);
        const right = Float64Array.from(gradient, of), most = right.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
        assert.ok(most > 0, key);
        found.forEach((value, i) => assert.ok(Math.abs(value - right[i]) <= 1e-5 * most, `${key}[${i}]`));
      }
    }
    assert.deepEqual(new Set(values.keys()), expected);
    assert.deepEqual(new Set(shapes.keys()), expected);
    pipeline.close();
  });
}

test("of tied parameters the state has the original's moments once, and both copies go on with them", async () => {
  const model: Model = bert("b", {
    ...{ vocabulary: 257, mask: 256, width: 12, blocks: 2, heads: 2, hidden: 10, positions: 16, types: 2, length: 16 },
    dropout: 0,
  });
  const [[original, copy]] = model.tied!, optimizer = adamw();
  const make = () => createPipeline(set, model, { optimizer });
  const [one, other] = [make(), make()];
  const source = maskedTextSource(new TextEncoder().encode("to be or not to be, ".repeat(9)), {
    ...{ length: 16, seed: 1, mask: 256 },
  });
  await one.step(schedule, source.next(4));
  const state = await one.optimizerState(), batch = source.next(4);
  assert.ok(state.values.has(`${original.name}.exp_avg`));
  assert.ok(!state.values.has(`${copy.name}.exp_avg`));
  other.setParameters(await one.parameters());
  other.setOptimizerState(state);
  for (const each of [one, other]) await each.step(schedule, batch);
  const parameters = await other.parameters();
  assert.deepEqual(parameters, await one.parameters());
  assert.deepEqual(parameters.get(copy.name), parameters.get(original.name));
  one.close();
  other.close();
});

test("a state that does not fit is refused in one line, and nothing has changed", async () => {
  const f32 = createPipeline(set, tinyModel(aligned), { optimizer: adamw() });
  const mixed = createPipeline(set, tinyModel(aligned), { optimizer: adamw(), precision: "mixed" });
  await f32.step(schedule, randomBatch(aligned, 4));
  const good = await f32.optimizerState(), scaled = await mixed.optimizerState();
  assert.deepEqual(scaled.lossScale, { value: 2 ** 16, good: 0 });
  const [name, values] = [...good.values][0];
  const changed = (value: Float32Array | undefined) => {
    const all = new Map(good.values);
    if (value) all.set(name, value);
    else all.delete(name);
    return { ...good, values: all };
  };
  const refused: [OptimizerState, RegExp][] = [
    [changed(undefined), /There are no values for moment ".*exp_avg" of tiny$/],
    [changed(values.subarray(1)), /Moment ".*exp_avg" is \[.*\], which \d+ values do not fill$/],
    [{ ...good, values: new Map([...good.values, ["x", values]]) }, /tiny has no moment "x"$/],
    [{ ...good, updates: -1 }, /setOptimizerState: updates must be a whole number, 0 or more, not -1$/],
    [{ ...good, updates: 1.5 }, /updates must be a whole number/],
    [{ ...good, lossScale: { value: 4, good: 0 } }, /the state has a loss scale, of mixed precision/],
  ];
  for (const [state, message] of refused) {
    assert.throws(() => f32.setOptimizerState(state), message);
    assert.throws(() => f32.setOptimizerState(state), /^UserError: [^\n]*$/);
  }
  assert.deepEqual(await f32.optimizerState(), good);
  const wrong: [OptimizerState["lossScale"], RegExp][] = [
    [undefined, /mixed precision needs `lossScale`/],
    [{ value: 3, good: 0 }, /A loss scale is a power of two, 1 to 2\^60, not 3$/],
    [{ value: 4, good: 2000 }, /2000 cannot be behind it$/],
    [{ value: 4, good: -1 }, /-1 cannot be behind it$/],
  ];
  for (const [lossScale, message] of wrong) {
    assert.throws(() => mixed.setOptimizerState({ ...scaled, lossScale }), message);
  }
  assert.deepEqual(await mixed.optimizerState(), scaled);
  mixed.setOptimizerState({ ...scaled, updates: 7, lossScale: { value: 4, good: 1999 } });
  await mixed.step(schedule, randomBatch(aligned, 4));
  const { updates, lossScale } = await mixed.optimizerState();
  assert.deepEqual([updates, lossScale], [8, { value: 8, good: 0 }], "the 2000th good step doubles it");
  f32.close();
  mixed.close();
});
