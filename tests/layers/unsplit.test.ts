/** Layers whose backward is given whole: the numbers of a split one, what that costs, and B in one go. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { checkGradients } from "../../lib/layers/check_gradients.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import { createGroup, releaseGroup } from "../../lib/layers/group.ts";
import { linear } from "../../lib/layers/linear.ts";
import { placeLayers } from "../../lib/layers/placed.ts";
import { recomputed } from "../../lib/layers/recompute.ts";
import { backwardInput, backwardWeight, forward } from "../../lib/layers/run.ts";
import { createSaved } from "../../lib/layers/saved.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { unsplit } from "../../lib/layers/unsplit.ts";
import { empty, release } from "../../lib/tensor.ts";
import { close, device } from "../ops/support.ts";
import { project } from "../reference/linear.ts";
import { checkLayer, checkSkippedInputGradient } from "./support.ts";

after(close);

const split = sequential([linear("a", 6, 7, { bias: true }), gelu(), linear("b", 7, 6)]);

/** How often the whole backward below has been run. */
let backwards = 0;

/** The same layer, as if nobody knew how to split it. */
const whole = unsplit({
  parameters: split.parameters,
  outputShape: split.outputShape,
  flops(shape) {
    const { f, i, w } = split.flops(shape);
    return { f, b: i + w };
  },
  forward: (y, x, saved) => forward(split, y, x, saved.child("split")),
  backward(dx, dy, saved) {
    backwards++;
    backwardInput(split, dx, dy, saved.child("split"));
    backwardWeight(split, [saved.child("split")]);
  },
});

test("a layer of a whole backward equals the reference; after I its gradients wait for W, and nothing else", async () => {
  const projection = linear("l", 6, 5, { bias: true });
  const layer = unsplit({
    ...projection,
    flops: () => ({ f: 0, b: 0 }),
    backward(dx, dy, saved) {
      backwardInput(projection, dx, dy, saved);
      backwardWeight(projection, [saved]);
    },
  });
  await checkLayer(await device(), {
    layer,
    inputShape: [9, 6],
    reference: (x, p) => project(x, p.get("l.weight")!, 6).map((value, i) => value + p.get("l.bias")![i % 5]),
    keeps: ["gradient 0", "gradient 1"],
  });
  await checkSkippedInputGradient(await device(), layer, [9, 6]);
});

test("it is right at every width, in B, in f16, in a chain and recomputed", async () => {
  for (const layer of [whole, recomputed(whole, "both"), sequential([split, whole])]) {
    const report = await checkGradients(layer, [9, 6], { device: await device() });
    assert.deepEqual(report.rows.filter(({ ok }) => !ok), []);
  }
});

test("the backward runs once for each micro-batch, split or not; its price is a set of gradients that waits", () => {
  const [on] = dryDevices(1);
  const placed = placeLayers([whole], on), before = on.ledger.total();
  for (const delayed of [true, false]) {
    const group = createGroup(placed, 1, { delayed }), saved = createSaved(group, 0);
    const [x, y, dy, dx] = [1, 2, 3, 4].map(() => empty(on, [9, 6], "transfer"));
    backwards = 0;
    forward(whole, y, x, saved);
    backwardInput(whole, dx, dy, saved);
    assert.equal(on.ledger.live.activations, 0);
    assert.equal(on.ledger.live.derivatives, delayed ? 3 * 256 : 0);
    backwardWeight(whole, [saved]);
    assert.equal(backwards, 1);
    saved.clear();
    releaseGroup(group);
    release(x, y, dy, dx);
    assert.equal(on.ledger.total(), before);
  }
  placed.release();
});

test("its work is that of the whole backward in I, an addition for each gradient in W, and no more than the backward in B", () => {
  const { f, i, w } = split.flops([9, 6]);
  assert.deepEqual(whole.flops([9, 6]), { f, i: i + w, w: 6 * 7 + 7 + 7 * 6, b: i + w });
});
