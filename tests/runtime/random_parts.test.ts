/** Random ways to cut and place a model: refused with nothing placed, or the same model. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../lib/errors.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import type { Action, Schedule } from "../../lib/schedules/schedule.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { assertSameGradients, randomBatch, tiny, tinyModel } from "./support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

/** One micro-batch after the other, whatever the placement. */
function oneByOne(placement: readonly number[]): Schedule {
  const actions: Action[][] = [[], []];
  for (const microbatch of [0, 1]) {
    const add = (kind: "F" | "B", stage: number) =>
      actions[placement[stage]].push({ kind, stage, microbatches: [microbatch] });
    placement.forEach((_, stage) => add("F", stage));
    placement.forEach((_, index) => add("B", placement.length - 1 - index));
  }
  return { name: "one by one", placement, actions };
}

test("a random cut and placement is refused with nothing placed, or has the loss and gradients of any other", async () => {
  const model = tinyModel(), { layers } = model, batch = randomBatch(tiny, 2), optimizer = sgd({ learningRate: 0.1 });
  const inUse = () => set.devices.map(({ ledger }) => ledger.total());
  const before = inUse();
  async function run(make: () => Pipeline, placement: readonly number[]) {
    const pipeline = make();
    const { loss } = await pipeline.step(oneByOne(placement), batch, { optimize: false });
    const gradients = await pipeline.gradients();
    pipeline.close();
    return { loss, gradients };
  }
  const expected = await run(() => createPipeline(set, model, { optimizer, seed: 3 }), [0, 1]);

  // Cuts of the six layers, mostly in order; some with a layer moved, left out or there twice.
  const all = [0, 1, 2, 3, 4, 5];
  const order = fc.oneof(
    { weight: 4, arbitrary: fc.constant(all) },
    { weight: 1, arbitrary: fc.shuffledSubarray([...all, 5]) },
    { weight: 1, arbitrary: fc.nat(5).map((last) => all.slice(0, last)) },
    {
      weight: 1,
      arbitrary: fc.nat(4).map((at) => all.map((index) => index === at ? at + 1 : index === at + 1 ? at : index)),
    },
  );
  const sizes = fc.array(fc.constantFrom(0, 1, 1, 2, 2, 3, 4, 6), { minLength: 1, maxLength: 4 });
  const ranks = fc.array(fc.constantFrom(0, 1, 0, 1, 0, 1, 2, -1, 0.5), { minLength: 4, maxLength: 4 });
  let [right, wrong] = [0, 0];
  await fc.assert(
    fc.asyncProperty(order, sizes, ranks, fc.constantFrom(0, 0, 0, 1), async (order, sizes, ranks, extra) => {
      let next = 0;
      const parts: Layer[][] = sizes.map((size) => order.slice(next, next += size).map((index) => layers[index]));
      if (next < order.length) parts.push(order.slice(next).map((index) => layers[index])); // the rest, in a last stage
      const placement = ranks.slice(0, parts.length + extra);
      const fits = placement.length === parts.length && placement.every((rank) => rank === 0 || rank === 1) &&
        parts.every((part) => part.length > 0) && parts.flat().length === 6 &&
        parts.flat().every((layer, index) => layer === layers[index]);
      const make = () => createPipeline(set, model, { optimizer, seed: 3, parts, placement });
      if (fits) {
        right++;
        const { loss, gradients } = await run(make, placement);
        assert.ok(Math.abs(loss - expected.loss) < 1e-6 * expected.loss, `${loss} instead of ${expected.loss}`);
        assertSameGradients(gradients, expected.gradients, 1e-5, `[${placement}]`);
      } else {
        wrong++;
        assert.throws(make, UserError);
      }
      assert.deepEqual(inUse(), before);
    }),
    { seed: 12, numRuns: 150 },
  );
  assert.ok(right > 10 && wrong > 50, `${right} cuts fit, ${wrong} do not`);
});
