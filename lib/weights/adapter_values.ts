/** What adapters do to the weights that they are beside, and what files say of it. */
import { UserError } from "../errors.ts";
import type { Adapts } from "../layers/parameter.ts";
import { type Model, parametersOf } from "../models/model.ts";
import { isObject, parseJson } from "./json.ts";
import type { TensorFile } from "./safetensors.ts";

/** Where our own files have what A B is multiplied with, by projection, as JSON: no tensor shows it. */
const metadataName = "twobp.lora_alpha";

/** The adapters of a model, one for each projection that has one. */
export function adaptersOf(model: Model): Adapts[] {
  return parametersOf(model).flatMap(({ adapts }) => adapts?.factor === "A" ? [adapts] : []);
}

/** What a file of a model with adapters says of them. */
export function scalesMetadata(model: Model): Record<string, string> {
  const alphas = adaptersOf(model).map(({ projection, alpha }) => [projection, alpha]);
  return alphas.length === 0 ? {} : { [metadataName]: JSON.stringify(Object.fromEntries(alphas)) };
}

/**
 * Compares with what {@link scalesMetadata} has put into a file; one that says nothing is not ours.
 *
 * @throws {UserError} Names the projection and both numbers.
 */
export function checkScales({ metadata }: TensorFile, path: string, model: Model): void {
  const text = metadata.get(metadataName);
  if (text === undefined) {
    throw new UserError(
      `${path} has adapters, and does not say what alpha they were trained with: give a file of saveWeights(), or adapters to loadAdapters()`,
    );
  }
  let said: unknown;
  try {
    said = parseJson(new TextEncoder().encode(text));
  } catch (error) {
    throw new UserError(`${path}: its metadata ${metadataName} ${(error as Error).message}`);
  }
  for (const { projection, alpha } of adaptersOf(model)) {
    const theirs = isObject(said) && Object.hasOwn(said, projection) ? said[projection] : undefined;
    if (theirs === alpha) continue;
    throw new UserError(
      `${path} is of another model: alpha of ${projection} is ${
        JSON.stringify(theirs) ?? "not said"
      } there, ${alpha} in ${model.name}`,
    );
  }
}

/**
 * W + alpha / rank * A B in the place of each W that has adapters, added up in float64.
 *
 * @throws {UserError} Where a W is one with another, which would get the sum too.
 */
export function addAdapters(values: Map<string, Float32Array>, model: Model): void {
  for (const { projection, weight } of adaptersOf(model)) {
    const tie = model.tied?.find((pair) => pair.some(({ name }) => name === weight));
    if (!tie) continue;
    const other = tie.find(({ name }) => name !== weight)!.name;
    throw new UserError(
      `saveWeights: the adapter of ${projection} is beside ${weight}, which is tied to ${other}: merged they would differ; ` +
        "save without `merged`",
    );
  }
  const parameters = parametersOf(model);
  const find = (name: string) => parameters.find((each) => each.name === name)!;
  for (const { name, adapts, shape: [inputs] } of parameters) {
    if (adapts?.factor !== "A") continue;
    const { weight, projection, start, transposed, rank, alpha } = adapts;
    const b = parameters.find((each) => each.adapts?.factor === "B" && each.adapts.projection === projection)!;
    const { shape } = find(weight), outputs = b.shape[1], sum = Float32Array.from(values.get(weight)!);
    const [left, right] = [values.get(name)!, values.get(b.name)!];
    const [down, across] = transposed ? [1, shape[1]] : [shape[1], 1];
    for (let i = 0; i < inputs; i++) {
      for (let j = 0; j < outputs; j++) {
        let product = 0;
        for (let k = 0; k < rank; k++) product += left[i * rank + k] * right[k * outputs + j];
        sum[i * down + (start + j) * across] += alpha / rank * product;
      }
    }
    values.set(weight, sum);
  }
}
