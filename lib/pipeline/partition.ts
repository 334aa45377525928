/** Cuts a model into stages. */
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { sequential } from "../layers/sequential.ts";
import type { Model } from "../models/model.ts";

/** Work of one stage on one micro-batch: the sum of the layers' three functions, in floating-point operations. */
export function stageFlops(layers: readonly Layer[], inputShape: readonly number[]): number {
  const { f, i, w } = sequential(layers).flops(inputShape);
  return f + i + w;
}

/**
 * Cuts a chain of layers into `stages` contiguous parts such that the heaviest is as light as it can be (dynamic
 * programming over the cuts: exact). Returns the layers of each stage.
 *
 * @throws {UserError} When there are more stages than layers.
 */
export function partition(model: Model, stages: number): Layer[][] {
  const { layers } = model;
  if (stages > layers.length) {
    throw new UserError(`${model.name} has ${layers.length} layers, which cannot be cut into ${stages} stages`);
  }
  // One sample is enough: every layer's work grows with the number of samples alike.
  const weights: number[] = [];
  let shape = model.inputShape(1);
  for (const layer of layers) {
    weights.push(stageFlops([layer], shape));
    shape = layer.outputShape(shape);
  }
  const before = weights.reduce((sums, weight) => [...sums, sums[sums.length - 1] + weight], [0]);
  const count = layers.length;
  // heaviest[s][n]: the least possible heaviest stage when the first n layers make s stages; cut[s][n]: where the last starts.
  const heaviest = Array.from({ length: stages + 1 }, () => new Array<number>(count + 1).fill(Infinity));
  const cut = Array.from({ length: stages + 1 }, () => new Array<number>(count + 1).fill(0));
  heaviest[0][0] = 0;
  for (let stage = 1; stage <= stages; stage++) {
    for (let end = stage; end <= count; end++) {
      for (let start = stage - 1; start < end; start++) {
        const load = Math.max(heaviest[stage - 1][start], before[end] - before[start]);
        if (load < heaviest[stage][end]) {
          heaviest[stage][end] = load;
          cut[stage][end] = start;
        }
      }
    }
  }
  const parts: Layer[][] = [];
  for (let stage = stages, end = count; stage > 0; end = cut[stage][end], stage--) {
    parts.unshift(layers.slice(cut[stage][end], end));
  }
  return parts;
}
