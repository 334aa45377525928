/** Cuts a model into stages. */
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { isTrained, type Parameter } from "../layers/parameter.ts";
import { sequential } from "../layers/sequential.ts";
import type { Model } from "../models/model.ts";
import { described, expectValue, listOf, positive, whole } from "../rules.ts";
import { rangesOf } from "../schedules/transforms/split_stages.ts";

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
 * Cuts a chain of layers into contiguous parts, one a stage, such that the heaviest is as light as it can be (dynamic programming over
 * the cuts: exact). Where a placement has its stages in runs of so many on one rank, as `splitStages()` makes them, that holds for
 * the runs, and then in each of them for its stages. Returns the layers of each stage.
 *
 * @param stages How many, or the rank of each.
 * @throws {UserError} When the number of stages is no whole number of 1 or more, or there are fewer layers than that.
 */
export function partition(model: Model, stages: number | readonly number[]): Layer[][] {
  const { layers } = model, placement = Array.isArray(stages) ? stages as readonly number[] : undefined;
  const count = placement?.length ?? stages as number;
  expectValue("The number of stages", count, positive);
  if (count > layers.length) {
    throw new UserError(`${model.name} has ${layers.length} layers, which cannot be cut into ${count} stages`);
  }
  const ranges = placement ? rangesOf(placement) : 1;
  const runs = cut(workBefore(model), 0, layers.length, count / ranges, ranges);
  return splitParts(model, runs.map(([start, end]) => layers.slice(start, end)), ranges);
}

/**
 * Cuts each part of a model into so many ranges of its layers, the heaviest as light as it can be: the parts of the stages that
 * `splitStages()` makes. A part has that many layers at least.
 */
export function splitParts(model: Model, parts: readonly (readonly Layer[])[], ranges: number): Layer[][] {
  const before = workBefore(model);
  let first = 0;
  return parts.flatMap(({ length }) => {
    const borders = cut(before, first, first + length, ranges, 1);
    first += length;
    return borders.map(([start, end]) => model.layers.slice(start, end));
  });
}

/** By layer the work of all before it, and at the end that of all. */
function workBefore(model: Model): number[] {
  const before = [0];
  let shape = model.inputShape(fewestSamples);
  for (const layer of model.layers) {
    before.push(before[before.length - 1] + stageFlops([layer], shape));
    shape = layer.outputShape(shape);
  }
  return before;
}

/**
 * The borders of `count` contiguous parts of the layers from `first` to `last` such that the heaviest is as light as it can be.
 *
 * @param before By layer the weight of all before it.
 * @param least Layers that a part has at least.
 */
function cut(before: readonly number[], first: number, last: number, count: number, least: number): [number, number][] {
  // heaviest[p][n]: the least possible heaviest part when the first n layers make p parts; starts[p][n]: where the last starts.
  const length = last - first;
  const heaviest = Array.from({ length: count + 1 }, () => new Array<number>(length + 1).fill(Infinity));
  const starts = Array.from({ length: count + 1 }, () => new Array<number>(length + 1).fill(0));
  heaviest[0][0] = 0;
  for (let part = 1; part <= count; part++) {
    for (let end = part * least; end <= length; end++) {
      for (let start = (part - 1) * least; start <= end - least; start++) {
        const load = Math.max(heaviest[part - 1][start], before[first + end] - before[first + start]);
        if (load < heaviest[part][end]) {
          heaviest[part][end] = load;
          starts[part][end] = start;
        }
      }
    }
  }
  const borders: [number, number][] = [];
  for (let part = count, end = length; part > 0; end = starts[part][end], part--) {
    borders.unshift([first + starts[part][end], first + end]);
  }
  return borders;
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
