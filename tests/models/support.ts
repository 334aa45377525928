/** What the tests of models share. */
import assert from "node:assert/strict";
import { generator } from "../../lib/random.ts";

/**
 * Fails unless each gradient equals the differences of `loss` in some of its elements. `loss` reads `values`, the parameters by
 * name in float64, which are changed and restored; parameters that are tied share an array.
 */
export function assertDifferences(
  loss: () => number,
  values: ReadonlyMap<string, Float64Array>,
  gradients: ReadonlyMap<string, Float32Array>,
): void {
  const random = generator("which elements");
  for (const [name, gradient] of gradients) {
    const array = values.get(name)!;
    const scale = Math.hypot(...gradient) / Math.sqrt(gradient.length);
    assert.ok(scale > 0, `the gradient of ${name} is zero`);
    for (let probe = 0; probe < 4; probe++) {
      const at = random.integer(gradient.length);
      const value = array[at];
      const difference = (h: number) => {
        array[at] = value + h;
        const above = loss();
        array[at] = value - h;
        const below = loss();
        array[at] = value;
        return (above - below) / (2 * h);
      };
      const expected = (4 * difference(5e-5) - difference(1e-4)) / 3; // Richardson: error of fourth order
      assert.ok(
        Math.abs(gradient[at] - expected) < 1e-4 * scale + 1e-4 * Math.abs(expected),
        `gradient of ${name}[${at}] is ${gradient[at]}, finite differences give ${expected}`,
      );
    }
  }
}
