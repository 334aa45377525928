import assert from "node:assert/strict";
import { test } from "node:test";
import { createModel } from "../../lib/models/registry.ts";
import { formatLayout, parseLayout } from "../../lib/runtime/layout.ts";
import { checkParts } from "../../lib/runtime/partition.ts";

test("a layout cuts a model into whole blocks, with the embedding on the first stage and the head on the last", () => {
  const llama = createModel("llama-tiny"), { layers } = llama; // an embedding, four blocks of attention and MLP, a head
  assert.deepEqual(parseLayout(llama, "Et|t*2|tL"), [layers.slice(0, 3), layers.slice(3, 7), layers.slice(7)]);
  assert.deepEqual(parseLayout(llama, "E|(tt|)*2L").map(({ length }) => length), [1, 4, 4, 1]);
  const resnet = createModel("resnet-tiny"); // a stem, six blocks whose names are numbered in three groups, a head
  assert.deepEqual(parseLayout(resnet, "Et*4|ttL").map(({ length }) => length), [5, 3]);
});

test("what a layout makes of every small model is a partition of it, and is written as it was read", () => {
  for (const [name, blocks] of [["llama-tiny", 4], ["bert-tiny", 4], ["mamba-tiny", 4], ["resnet-tiny", 6]] as const) {
    const model = createModel(name);
    for (const layout of [`Et*${blocks}L`, `E|t*${blocks}|L`, `Et|t*${blocks - 1},L`, `Et*${blocks - 2}|t|tL`]) {
      const parts = parseLayout(model, layout);
      checkParts(model, parts, [...parts.keys()], parts.length);
      assert.deepEqual(parseLayout(model, formatLayout(model, parts)), parts, `${name} ${layout}`);
    }
  }
  assert.equal(
    formatLayout(createModel("llama-tiny"), parseLayout(createModel("llama-tiny"), "E,(tt|)*2L")),
    "Et*2|t*2|L",
  );
});

test("layouts and partitions that do not go together are refused in one line", () => {
  const model = createModel("llama-tiny"), { layers } = model;
  assert.throws(() => parseLayout(model, "Et*3|t*2,L"), {
    name: "UserError",
    message: 'Layout "Et*3|t*2,L" has 5 blocks t, and llama-tiny has 4',
  });
  assert.throws(
    () => parseLayout(model, "Et*2||t*2,L"),
    /^UserError: Layout ".*" leaves stage 1 without a layer; every stage/,
  );
  assert.throws(() => parseLayout(model, 4 as never), /^UserError: A layout must be a string, not 4$/);
  assert.throws(
    () => formatLayout(model, [layers.slice(0, 2), layers.slice(2)]),
    /^UserError: Stage 0 ends after 2 layers of llama-tiny, where no block ends$/,
  );
  assert.throws(
    () => formatLayout(model, [layers.slice(0, 3)]),
    /^UserError: The parts have 3 layers, and llama-tiny has 10$/,
  );
  const mixed = { ...model, layers: [...layers.slice(0, 3), layers[9], ...layers.slice(3, 9)] };
  assert.throws(
    () => parseLayout(mixed, "Et*4L"),
    /^UserError: A layout is for blocks one after the other, and llama-tiny has other/,
  );
  const plain = { ...model, layers: [layers[0], layers[9]] };
  assert.throws(
    () => parseLayout(plain, "EL"),
    /^UserError: A layout is for a model with numbered blocks, as "blocks.0", and/,
  );
});
