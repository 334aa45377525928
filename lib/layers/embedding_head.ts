/** Output head that reuses a token embedding's table, y = x T^T: list the two parameters as tied in the model. */
import { matmul } from "../ops/matmul.ts";
import { joinAdjacent } from "../tensor.ts";
import type { Layer } from "./layer.ts";
import { parameter } from "./parameter.ts";

/** Logits [rows, vocabulary] of x [rows, width]; the weight is stored as the embedding's table is, [vocabulary, width]. */
export function embeddingHead(name: string, vocabulary: number, width: number): Layer {
  const table = parameter(`${name}.weight`, [vocabulary, width], { normal: 0.02 });
  return {
    parameters: [table],
    keepsInput: true,
    keepsGradient: true,
    outputShape: ([rows]) => [rows, vocabulary],
    flops([rows]) {
      const each = 2 * rows * vocabulary * width;
      return { f: each, i: each, w: each };
    },
    forward(y, x, saved) {
      saved.keep("x", x);
      matmul(y, x, table.value, { transposeB: true });
    },
    backwardInput(dx, dy, saved) {
      saved.keep("dy", dy);
      if (dx) matmul(dx, dy, table.value);
    },
    backwardWeight(saved) {
      for (const [x, dy] of joinAdjacent(saved.map((each) => [each.get("x"), each.get("dy")] as const))) {
        matmul(table.gradient, dy, x, { transposeA: true, accumulate: true });
      }
    },
  };
}
