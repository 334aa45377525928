/** Token embedding: row `id` of a table for each token. It has no input gradient, backward-p2 only. */
import * as ops from "../ops/embedding.ts";
import { expectInput, type Layer } from "./layer.ts";
import { butFrozen, isTrained, parameter, type Trainable } from "./parameter.ts";

/** A table of `vocabulary` rows of `width` features. Its input is packed ids, u32 [2, rows] (see `packIds`). */
export function embedding(name: string, vocabulary: number, width: number, trainable: Trainable = true): Layer {
  const table = parameter(`${name}.weight`, [vocabulary, width], { normal: 0.02 }, trainable);
  const trained = isTrained(table);
  return {
    parameters: [table],
    pieces: "alone",
    // Ids are kept, but each micro-batch's by itself: its positions are chained within it.
    reads: { input: false, gradient: trained, nothingElse: true },
    outputShape(shape) {
      expectInput(name, shape, [2, "rows"]);
      return [shape[1], width];
    },
    flops: ([, rows]) => ({ f: rows * width, i: 0, w: trained ? rows * width : 0 }),
    forward(y, ids, saved) {
      if (trained) saved.keep("ids", ids);
      ops.embedding(y, ids, saved.value(table));
    },
    backwardInput(_dx, dy, saved) {
      if (trained) saved.keep("dy", dy);
    },
    backwardWeight(saved) {
      const gradient = saved[0].gradient(table);
      for (const each of saved) ops.embeddingBackwardWeight(gradient, each.get("dy"), each.get("ids"));
    },
    freeze: (isFrozen) => embedding(name, vocabulary, width, butFrozen(trainable, isFrozen)),
  };
}
