/** Token embedding: row `id` of a table for each token. It has no input gradient, backward-p2 only. */
import { embedding, embeddingBackwardWeight } from "../ops/embedding.ts";
import type { Layer } from "./layer.ts";
import { parameter } from "./parameter.ts";

/** A table of `vocabulary` rows of `width` features. Its input is packed ids, u32 [2, rows] (see `packIds`). */
export function embeddingLayer(name: string, vocabulary: number, width: number): Layer {
  const table = parameter(`${name}.weight`, [vocabulary, width], { normal: 0.02 });
  return {
    parameters: [table],
    keepsInput: false, // ids are kept, but each micro-batch's by itself: its positions are chained within it
    keepsGradient: true,
    lean: true,
    outputShape: ([, rows]) => [rows, width],
    flops: ([, rows]) => ({ f: rows * width, i: 0, w: rows * width }),
    forward(y, ids, saved) {
      saved.keep("ids", ids);
      embedding(y, ids, table.value);
    },
    backwardInput(_dx, dy, saved) {
      saved.keep("dy", dy);
    },
    backwardWeight(saved) {
      for (const each of saved) embeddingBackwardWeight(table.gradient, each.get("dy"), each.get("ids"));
    },
  };
}
