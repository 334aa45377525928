/** Cuts a model into stages. */
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { sequential } from "../layers/sequential.ts";
import type { Model } from "../models/model.ts";
import { expectValue, positive } from "../rules.ts";

/**
 * Samples to ask for the work of layers with. Every layer's work grows with the samples alike, so that few are enough;
 * but batch normalisation of a single one may have one value a channel, and refuses it.
 */
export const fewestSamples = 2;

/** Work of one stage on one micro-batch: the sum of the layers' three functions, in floating-point operations. */
export function stageFlops(layers: readonly Layer[], inputShape: readonly number[]): number {
  const { f, i, w } = sequential(layers).flops(inputShape);
  return f + i + w;
}

/**
 * Cuts a chain of layers into `stages` contiguous parts such that the heaviest is as light as it can be (dynamic
 * programming over the cuts: exact). Returns the layers of each stage.
 *
 * @throws {UserError} When `stages` is no whole number of 1 or more, or there are fewer layers than that.
 */
export function partition(model: Model, stages: number): Layer[][] {
  const { layers } = model;
  expectValue("The number of stages", stages, positive);
  if (stages > layers.length) {
    throw new UserError(`${model.name} has ${layers.length} layers, which cannot be cut into ${stages} stages`);
  }
  const weights: number[] = [];
  let shape = model.inputShape(fewestSamples);
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
