/** How a model is cut into stages, as a table. */
import type { Layer } from "../layers/layer.ts";
import { countParameters, type Model } from "../models/model.ts";
import { fewestSamples, stageFlops } from "../runtime/partition.ts";
import type { Table } from "./html.ts";

/** One row a stage: its layers, its parameters, and its share of the work as counted in floating-point operations. */
export function partitionTable(model: Model, parts: readonly (readonly Layer[])[]): Table {
  let shape = model.inputShape(fewestSamples);
  const work = parts.map((layers) => {
    const flops = stageFlops(layers, shape);
    shape = layers.reduce((current, layer) => layer.outputShape(current), shape);
    return flops;
  });
  const total = work.reduce((sum, flops) => sum + flops, 0);
  return {
    columns: ["stage", "layers", "first", "last", "parameters", "work per sample, MFLOP", "share"],
    rows: parts.map((layers, stage) => [
      stage,
      layers.length,
      nameOf(layers[0]),
      nameOf(layers[layers.length - 1]),
      countParameters({ ...model, layers }).toLocaleString("en-US"),
      (work[stage] / fewestSamples / 1e6).toFixed(1),
      `${(100 * work[stage] / total).toFixed(1)} %`,
    ]),
  };
}

/** What the names of a layer's parameters have in common, "blocks.0.attention" for example. */
function nameOf({ parameters }: Layer): string {
  const names = parameters.map(({ name }) => name.split(".").slice(0, -1));
  const [first = [], ...others] = names;
  const common = first.filter((part, at) => others.every((other) => other[at] === part));
  return common.join(".") || "-";
}
