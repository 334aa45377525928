/** Cuts a model into stages. */
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { isTrained, type Parameter } from "../layers/parameter.ts";
import { sequential } from "../layers/sequential.ts";
import type { Model } from "../models/model.ts";
import { described, expectValue, listOf, positive, whole } from "../rules.ts";

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

/**
 * Compares what is to be placed with the model: nothing is missing, twice, out of order or nowhere.
 *
 * @throws {UserError} Unless `placement` gives each stage a rank from 0 to `devices - 1` (a rank may be left without one, and
 * idles), `parts` are as many, none empty, and hold the model's own layers, each once and in order (or what wraps one
 * and has its parameters), the names of the model's parameters and state buffers are unique, and
 * tied parameters are pairs of one shape.
 */
export function checkParts(
  model: Model,
  parts: readonly (readonly Layer[])[],
  placement: readonly number[],
  devices: number,
): void {
  checkParameters(model);
  expectValue("The placement, a rank for each stage,", placement, listOf(whole(0, devices - 1)));
  if (parts.length !== placement.length) {
    throw new UserError(
      `There are ${parts.length} parts for the ${placement.length} stages of ${described(placement)}`,
    );
  }
  let next = 0;
  for (const [stage, part] of parts.entries()) {
    if (!Array.isArray(part) || part.length === 0) {
      throw new UserError(`Part ${stage} must be a list of one or more layers, not ${described(part)}`);
    }
    for (const [at, layer] of part.entries()) {
      if (!stands(layer, model.layers[next])) {
        throw new UserError(`Layer ${at} of stage ${stage} is ${misplaced(layer, next, model)}`);
      }
      next++;
    }
  }
  if (next < model.layers.length) {
    throw new UserError(
      `The parts end with layer ${
        next - 1
      } of ${model.name}, which has ${model.layers.length}: they must hold all, in order`,
    );
  }
}

/** Whether a layer is one of the model's, or wraps it, as recomputation does: then it has the same parameters. */
function stands(layer: Layer, own: Layer | undefined): boolean {
  if (layer === own) return true;
  const { parameters } = layer;
  return own !== undefined && parameters.length > 0 && parameters.length === own.parameters.length &&
    parameters.every((parameter, i) => parameter === own.parameters[i]);
}

/** What is wrong with a layer where layer `next` of the model belongs. */
function misplaced(layer: Layer, next: number, { name, layers }: Model): string {
  const index = layers.findIndex((own) => stands(layer, own));
  const wanted = next < layers.length ? `layer ${next} of ${name} must come here` : `${name} ends before it`;
  return index < 0 ? `none of ${name}'s own layers; ${wanted}` : `layer ${index} of ${name}; ${wanted}`;
}

/** Names are what values are read, set, initialised and saved by. */
function checkParameters({ name: model, layers, tied = [] }: Model): void {
  const parameters = layers.flatMap((layer) => [...layer.parameters]);
  const names = new Set<string>();
  for (const { name, shape } of [...parameters, ...layers.flatMap((layer) => layer.buffers ?? [])]) {
    if (names.has(name)) throw new UserError(`${model} has two parameters or buffers "${name}"; names must be unique`);
    names.add(name);
    expectValue(`The shape of "${name}" of ${model}`, shape, axes);
  }
  const twins = new Set<Parameter>();
  for (const [original, copy] of tied) {
    const stray = [original, copy].find((each) => !parameters.includes(each));
    if (stray) throw new UserError(`${model} ties "${stray.name}", which is no parameter of its layers`);
    if (original === copy || String(original.shape) !== String(copy.shape)) {
      const [one, other] = [original, copy].map(({ name, shape }) => `"${name}" [${shape}]`);
      throw new UserError(`${model} ties ${one} and ${other}; these must be two, of one shape`);
    }
    const again = [original, copy].find((each) => twins.has(each));
    if (again) throw new UserError(`${model} ties "${again.name}" twice; a parameter has one twin at most`);
    if (isTrained(original) !== isTrained(copy)) {
      const [still, other] = isTrained(copy) ? [original, copy] : [copy, original];
      throw new UserError(
        `${model} ties "${still.name}", which is frozen, and "${other.name}", which is not: freeze both or none`,
      );
    }
    twins.add(original).add(copy);
  }
}

const axes = listOf(positive);
