import assert from "node:assert/strict";
import { test } from "node:test";
import {
  constantRate,
  cosineDecay,
  inverseSquareRoot,
  type LearningRate,
  linearDecay,
  warmUpStableDecay,
} from "../../lib/train/learning_rates.ts";

const over = (rate: LearningRate, ...steps: number[]) => steps.map((step) => Number(rate(step).toFixed(6)));

test("learning rates have the values of their closed forms", () => {
  assert.deepEqual(over(constantRate(), 0, 1, 1e6), [1, 1, 1]);
  assert.deepEqual(over(linearDecay({ steps: 10 }), 0, 5, 9, 10, 99), [1, 0.5, 0.1, 0, 0]);
  assert.deepEqual(over(linearDecay({ steps: 10, least: 0.2 }), 0, 5, 10, 11), [1, 0.6, 0.2, 0.2]);
  const cos = (x: number) => Number(((1 + Math.cos(Math.PI * x)) / 2).toFixed(6));
  assert.deepEqual(over(cosineDecay({ steps: 8 }), 0, 1, 2, 4, 7, 8, 80), [
    1,
    cos(1 / 8),
    cos(1 / 4),
    0.5,
    cos(7 / 8),
    0,
    0,
  ]);
  assert.deepEqual(over(cosineDecay({ steps: 8, least: 0.1 }), 4, 8), [0.55, 0.1]);
  assert.deepEqual(over(inverseSquareRoot({ warmUp: 4 }), 0, 3, 15, 63, 399), [0.25, 1, 0.5, 0.25, 0.1]);
  const stable = warmUpStableDecay({ steps: 20, warmUp: 4, decay: 5 });
  assert.deepEqual(over(stable, 0, 3, 4, 15, 16, 19, 20, 30), [0.25, 1, 1, 1, 0.8, 0.2, 0, 0]);
  assert.deepEqual(over(warmUpStableDecay({ steps: 4, decay: 4, least: 0.5 }), 0, 2, 4), [1, 0.75, 0.5]);
});

test("a warm-up ends with the step of its last, and nothing jumps behind it", () => {
  for (
    const rate of [
      constantRate({ warmUp: 5 }),
      linearDecay({ steps: 50, warmUp: 5 }),
      cosineDecay({ steps: 50, warmUp: 5 }),
      inverseSquareRoot({ warmUp: 5 }),
      warmUpStableDecay({ steps: 50, warmUp: 5, decay: 10 }),
    ]
  ) {
    assert.deepEqual(over(rate, 0, 1, 4), [0.2, 0.4, 1]);
    assert.ok(rate(5) > 0.9);
    for (let step = 5; step < 60; step++) {
      assert.ok(rate(step) <= rate(step - 1) && rate(step) >= 0, "from there on it does not rise");
    }
  }
});

test("options that make no sense are refused", () => {
  const refused = (make: () => unknown, message: RegExp) => assert.throws(make, message);
  refused(() => cosineDecay({ steps: 0 }), /^UserError: cosineDecay: steps must be a whole number, 1 or more, not 0$/);
  refused(() => cosineDecay({ steps: 5, warmUp: 5 }), /^UserError: cosineDecay: 5 steps of warm-up leave nothing/);
  refused(
    () => linearDecay({ steps: 5, least: 2 }),
    /^UserError: linearDecay: least must be a number from 0 to 1, not 2$/,
  );
  refused(() => linearDecay({ steps: 5, warmup: 1 } as never), /^UserError: linearDecay: there is no "warmup"/);
  refused(() => inverseSquareRoot({ warmUp: 0 }), /^UserError: inverseSquareRoot: warmUp must be/);
  refused(() => warmUpStableDecay({ steps: 9, warmUp: 5, decay: 5 }), /5 steps of warm-up and 5 of decay do not fit/);
  refused(() => constantRate({ warmUp: 1.5 }), /^UserError: constantRate: warmUp must be/);
});
