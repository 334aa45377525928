/** Token embedding: row `id` of a table for each token. It has no input gradient, backward-p2 only. */
import * as ops from "../ops/embedding.ts";
import { expectInput, type Layer } from "./layer.ts";
import { parameter } from "./parameter.ts";

/** A table of `vocabulary` rows of `width` features. Its input is packed ids, u32 [2, rows] (see `packIds`). */
export function embedding(name: string, vocabulary: number, width: number): Layer {
  const table = parameter(`${name}.weight`, [vocabulary, width], { normal: 0.02 });
  return {
    parameters: [table],
    // Ids are kept, but each micro-batch's by itself: its positions are chained within it.
    reads: { input: false, gradient: true, nothingElse: true },
    outputShape(shape) {
      expectInput(name, shape, [2, "rows"]);
      return [shape[1], width];
    },
    flops: ([, rows]) => ({ f: rows * width, i: 0, w: rows * width }),
    forward(y, ids, saved) {
      saved.keep("ids", ids);
      ops.embedding(y, ids, saved.value(table));
    },
    backwardInput(_dx, dy, saved) {
      saved.keep("dy", dy);
    },
    backwardWeight(saved) {
      const gradient = saved[0].gradient(table);
      for (const each of saved) ops.embeddingBackwardWeight(gradient, each.get("dy"), each.get("ids"));
    },
  };
}
