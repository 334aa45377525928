import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createGroup, releaseGroup } from "../../lib/layers/group.ts";
import { placeLayers } from "../../lib/layers/placed.ts";
import { createSaved } from "../../lib/layers/saved.ts";
import { crossEntropy } from "../../lib/losses/cross_entropy.ts";
import type { Loss } from "../../lib/losses/loss.ts";
import { meanSquaredError } from "../../lib/losses/mean_squared_error.ts";
import { lossBackward, lossForward } from "../../lib/losses/run.ts";
import { ignored } from "../../lib/ops/loss.ts";
import { empty, fromArray, release, toArray } from "../../lib/tensor.ts";
import { assertClose, assertGradient, close, device, normal, tokens } from "../ops/support.ts";
import * as reference from "../reference/loss.ts";
import { huber } from "../reference/mlp.ts";
import { huberLoss } from "./huber.ts";

after(close);

const rows = 6, width = 5, factor = 0.25;
const outputs = normal(rows * width, 1).map((value) => 2 * value);
const numbers = normal(rows * width, 2), shift = normal(rows * width, 3);
const classes = tokens(rows, width, 4);
classes[2] = ignored;
const marked = classes.map((target) => target === ignored ? 77 : target);
const total = (values: Float64Array) => values.reduce((a, b) => a + b, 0);

interface Case {
  readonly loss: Loss;
  readonly targets: Float32Array | Uint32Array;
  /** The sum in float64. */
  readonly sum: (outputs: Float64Array) => number;
}

const cases: Record<string, Case> = {
  "cross-entropy": {
    loss: crossEntropy(),
    targets: classes,
    sum: (x) => total(reference.crossEntropy(x, classes, width).losses),
  },
  "cross-entropy with smoothing and another mark": {
    loss: crossEntropy({ smoothing: 0.2, ignored: 77 }),
    targets: marked,
    sum: (x) => total(reference.crossEntropy(x, marked, width, { smoothing: 0.2, none: 77 }).losses),
  },
  "mean squared error": {
    loss: meanSquaredError(),
    targets: numbers,
    sum: (x) => total(reference.squaredError(x, numbers, width)),
  },
  "a loss of one's own": {
    loss: huberLoss(0.7, "shift"),
    targets: numbers,
    sum: (x) => total(x.map((value, i) => huber(value - numbers[i] - shift[i], 0.7))),
  },
};

for (const [name, { loss, targets, sum }] of Object.entries(cases)) {
  for (const dtype of ["f32", "f16"] as const) {
    test(`${name} of ${dtype} outputs: the sum is the float64 reference's, its gradient the finite differences'`, async (t) => {
      const on = await device();
      if (dtype === "f16" && !on.gpu.info.f16) return t.skip("this device has no f16");
      const before = on.ledger.total();
      const placed = placeLayers([], on), group = createGroup(placed, 1);
      const sides = new Map([["shift", fromArray(on, [rows, width], shift, "activations")]]);
      const saved = createSaved(group, 0, sides);
      const x = fromArray(on, [rows, width], outputs, "activations", dtype);
      const wanted = fromArray(on, loss.targets(x.shape).shape, targets, "activations");
      const [out, dx] = [empty(on, [1], "workspace"), empty(on, [rows, width], "derivatives", dtype)];
      const scale = fromArray(on, [1], Float32Array.of(factor), "workspace");
      const at = Float64Array.from(await toArray(x)); // as f16 holds them
      lossForward(loss, out, x, wanted, saved);
      release(x, wanted); // what the backward reads is kept
      lossBackward(loss, dx, scale, saved);
      assert.deepEqual(saved.names(), [], "nothing waits for a W");
      assertClose(await toArray(out), [sum(at)], 1e-5, "sum");
      const gradient = await toArray(dx);
      assertGradient((x) => factor * sum(x), at, gradient, "gradient", dtype === "f32" ? 2e-6 : 1e-3);
      saved.clear();
      releaseGroup(group);
      release(out, dx, scale);
      placed.release();
      assert.equal(on.ledger.total(), before, "the ledger is where it was");
    });
  }
}

test("losses say what they compare outputs with", () => {
  assert.deepEqual(crossEntropy().targets([6, 5]), { type: "u32", shape: [6], below: 5, ignored });
  assert.deepEqual(meanSquaredError().targets([2, 3, 4]), { type: "f32", shape: [2, 3, 4] });
  assert.throws(() => crossEntropy().targets([2, 3, 4]), {
    name: "UserError",
    message: "Cross-entropy compares logits [rows, classes] with classes, not outputs [2,3,4]",
  });
});

test("crossEntropy() takes a share below 1 to smooth with, and a u32 to ignore", () => {
  const refused = (options: object, message: string) =>
    assert.throws(() => crossEntropy(options), { name: "UserError", message });
  for (const smoothing of [-0.1, 1, NaN, "0.1"]) {
    const shown = typeof smoothing === "string" ? '"0.1"' : smoothing;
    refused({ smoothing }, `crossEntropy: smoothing must be a number, 0 or more and below 1, not ${shown}`);
  }
  refused({ ignored: -100 }, "crossEntropy: ignored must be a whole number from 0 to 4294967295, not -100");
  refused({ smooth: 0.1 }, 'crossEntropy: there is no "smooth"; there are smoothing, ignored');
});
