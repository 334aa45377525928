import assert from "node:assert/strict";
import { test } from "node:test";
import { createModel } from "../../lib/models/registry.ts";
import { partition, splitParts, stageFlops } from "../../lib/runtime/partition.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import type { Model } from "../../lib/models/model.ts";

/** The work of each part, asked of the layers themselves. */
function worksOf(model: Model, parts: readonly (readonly Layer[])[]): number[] {
  let shape = model.inputShape(2);
  return parts.map((layers) => {
    const work = stageFlops(layers, shape);
    for (const layer of layers) shape = layer.outputShape(shape);
    return work;
  });
}

/** All ways to cut so many layers into so many parts of at least `least`. */
function cuts(layers: number, parts: number, least: number): number[][] {
  if (parts === 1) return layers >= least ? [[layers]] : [];
  const all: number[][] = [];
  for (let first = least; first <= layers - least * (parts - 1); first++) {
    for (const rest of cuts(layers - first, parts - 1, least)) all.push([first, ...rest]);
  }
  return all;
}

function cutAt<Element>(list: readonly Element[], lengths: readonly number[]): Element[][] {
  let start = 0;
  return lengths.map((length) => list.slice(start, start += length));
}

test("a model is cut such that the heaviest part is as light as it can be: by ranks first, then each rank's ranges", () => {
  for (const name of ["llama-tiny", "bert-tiny", "mamba-tiny", "resnet-tiny"]) {
    const model = createModel(name), { layers } = model;
    const lightest = (list: readonly number[][]) =>
      Math.min(...list.map((lengths) => Math.max(...worksOf(model, cutAt(layers, lengths)))));
    for (const stages of [1, 2, 3, 4]) {
      assert.equal(Math.max(...worksOf(model, partition(model, stages))), lightest(cuts(layers.length, stages, 1)));
    }
    const ranges = partition(model, [0, 0, 1, 1]);
    assert.deepEqual(ranges.flat(), layers);
    const ranks = [ranges.slice(0, 2).flat(), ranges.slice(2).flat()];
    const near = (a: number, b: number) => assert.ok(Math.abs(a - b) <= 1e-9 * b, `${name}: ${a}, not ${b}`);
    near(Math.max(...worksOf(model, ranks)), lightest(cuts(layers.length, 2, 2)));
    // In each rank by itself: the other's part has a length of its own then.
    const [first, second] = ranks.map(({ length }) => length);
    near(
      Math.max(...worksOf(model, ranges).slice(0, 2)),
      Math.min(
        ...cuts(first, 2, 1).map((own) => Math.max(...worksOf(model, cutAt(layers, [...own, second])).slice(0, 2))),
      ),
    );
    near(
      Math.max(...worksOf(model, ranges).slice(2)),
      Math.min(
        ...cuts(second, 2, 1).map((own) => Math.max(...worksOf(model, cutAt(layers, [first, ...own])).slice(1))),
      ),
    );
  }
});

test("stages that wrap around the ranks are all cut alike, and what cannot be cut is refused", () => {
  const model = createModel("llama-tiny");
  for (const placement of [[0, 1, 0, 1], [0, 1, 1, 0], [0, 1, 2, 2, 1, 0], [0, 0, 0]]) {
    assert.deepEqual(partition(model, placement), partition(model, placement.length), String(placement));
  }
  assert.deepEqual(splitParts(model, partition(model, 2), 1), partition(model, 2));
  assert.throws(
    () => partition(model, Array.from({ length: 12 }, (_, stage) => stage >> 1)),
    /^UserError: llama-tiny has 10 layers, which cannot be cut into 12 stages$/,
  );
});
