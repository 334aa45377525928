/** Partitions as text: Megatron-LM's layouts. */
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { expectModel, type Model } from "../models/model.ts";
import { expectValue, filled, string } from "../rules.ts";
import { blocksOfLayout, readLayout, writeLayout } from "../schedules/csv/layout.ts";
import { quoted } from "../text.ts";

/**
 * Cuts a model as a text says, in the form of Megatron-LM's `--pipeline-model-parallel-layout`: the stages from the input on, apart
 * by `|`; `E` is what comes before the blocks, `t` a block, `L` what comes after them, and the loss; `t*3` is `ttt`, `(tt|)*2` is
 * `tt|tt|`, and commas are nothing. A block is the layers whose parameters have the same name up to its number, such as
 * `blocks.0`; a layer without parameters belongs to what stands before it.
 *
 * @example
 * ```ts
 * import { createModel } from "twobp";
 * import { formatLayout, parseLayout } from "twobp/runtime";
 *
 * const model = createModel("llama-tiny"); // four blocks, of attention and MLP
 * const parts = parseLayout(model, "Et|t*3,L"); // for createPipeline(set, model, { parts })
 * console.log(parts.map(({ length }) => length), formatLayout(model, parts)); // [ 3, 7 ] Et|t*3,L
 * ```
 *
 * @returns The layers of each stage.
 * @throws {UserError} For what is no layout, a layout of another number of blocks, and a stage without a layer.
 */
export function parseLayout(model: Model, layout: string): Layer[][] {
  expectModel("parseLayout", model);
  expectValue("A layout", layout, string);
  const { before, blocks, after } = anatomyOf(model);
  const counts = blocksOfLayout(layout), stages = readLayout(layout);
  const total = counts.reduce((sum, count) => sum + count);
  if (total !== blocks.length) {
    throw new UserError(
      `Layout ${quoted(layout)} has ${total} blocks t, and ${model.name} has ${blocks.length}`,
    );
  }
  let next = 0;
  return stages.map((letters, stage) => {
    const own = blocks.slice(next, next += counts[stage]).flat();
    const layers = [...letters.includes("E") ? before : [], ...own, ...letters.includes("L") ? after : []];
    if (layers.length > 0) return layers;
    throw new UserError(`Layout ${quoted(layout)} leaves stage ${stage} without a layer; every stage needs one`);
  });
}

/**
 * Writes a partition as {@link parseLayout} reads it.
 *
 * @throws {UserError} Where a stage ends within a block, or within what comes before the blocks or after them, and where layers are
 * missing.
 */
export function formatLayout(model: Model, parts: readonly (readonly Layer[])[]): string {
  expectModel("formatLayout", model);
  expectValue("The parts", parts, filled);
  const { before, blocks, after } = anatomyOf(model);
  const ends = new Map<number, number>(); // of so many layers: how many blocks
  blocks.reduce((layers, block, index) => {
    ends.set(layers + block.length, index + 1);
    return layers + block.length;
  }, before.length);
  ends.set(before.length, 0).set(before.length + blocks.flat().length + after.length, blocks.length);
  let layers = 0, done = 0;
  const counts = parts.map((part, stage) => {
    layers += part.length;
    const end = ends.get(layers);
    if (end === undefined) {
      throw new UserError(`Stage ${stage} ends after ${layers} layers of ${model.name}, where no block ends`);
    }
    const count = end - done;
    done = end;
    return count;
  });
  if (layers === model.layers.length) return writeLayout(counts);
  throw new UserError(`The parts have ${layers} layers, and ${model.name} has ${model.layers.length}`);
}

/** A model's layers before its blocks, those of each block, and those after them. */
function anatomyOf({ name, layers }: Model): { before: Layer[]; blocks: Layer[][]; after: Layer[] } {
  const before: Layer[] = [], blocks: Layer[][] = [], after: Layer[] = [];
  let current = before, block: string | undefined;
  for (const layer of layers) {
    const [parameter] = layer.parameters;
    const [own] = parameter ? /^(?:.*?\.)?\d+(?=\.)/.exec(parameter.name) ?? [] : [block];
    if (own !== undefined && own !== block) blocks.push(current = []);
    else if (own === undefined && blocks.length > 0) current = after;
    block = own;
    if (current !== after && after.length > 0) {
      throw new UserError(`A layout is for blocks one after the other, and ${name} has other layers between them`);
    }
    current.push(layer);
  }
  if (blocks.length > 0) return { before, blocks, after };
  throw new UserError(`A layout is for a model with numbered blocks, as "blocks.0", and ${name} has none`);
}
