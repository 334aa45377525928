/** Models with adapters: which projections they have, what is trained, and that their layers are right. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { checkGradients } from "../../lib/layers/check_gradients.ts";
import { gelu } from "../../lib/layers/gelu.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { linear } from "../../lib/layers/linear.ts";
import { isTrained } from "../../lib/layers/parameter.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { meanSquaredError } from "../../lib/losses/mean_squared_error.ts";
import { bert, bertConfigurations } from "../../lib/models/bert.ts";
import { defineModel } from "../../lib/models/define_model.ts";
import { loraModel } from "../../lib/models/lora_model.ts";
import { mamba } from "../../lib/models/mamba.ts";
import { countParameters, type Model, parametersOf } from "../../lib/models/model.ts";
import { createModel } from "../../lib/models/registry.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { close, device } from "../ops/support.ts";
import { tiny, tinyModel } from "../runtime/support.ts";

after(close);

const adapters = (model: Model) =>
  parametersOf(model).flatMap(({ adapts }) => adapts?.factor === "A" ? [adapts.projection] : []);
const trained = (model: Model) => parametersOf(model).filter(isTrained).map(({ name }) => name);
const all = { rank: 2, alpha: 3, targets: /./ };

const encoder = bert("b", {
  ...bertConfigurations["bert-tiny"],
  ...{ vocabulary: 9, mask: 8, width: 8, blocks: 1, heads: 2, hidden: 12, positions: 4, length: 4, dropout: 0.1 },
});
const scan = mamba("m", { vocabulary: 9, width: 8, blocks: 1, expand: 2, state: 4, rank: 2, length: 4 });
const images = resnet("r", { block: "basic", blocks: [1], width: 4, stem: "3x3", size: 8, classes: 3 });

test("loraModel() finds every projection of every family, and trains nothing but adapters", () => {
  const models: [Model, string[]][] = [
    [tinyModel({ ...tiny, dropout: 0.1 }), [
      ...[0, 1].flatMap((block) => [
        ...["q", "k", "v", "out"].map((part) => `blocks.${block}.attention.${part}`),
        ...["gate", "up", "down"].map((part) => `blocks.${block}.mlp.${part}`),
      ]),
      "head",
    ]],
    [encoder, [
      ...["q", "k", "v", "out"].map((part) => `blocks.0.attention.${part}`),
      ...["blocks.0.mlp.up", "blocks.0.mlp.down", "head.dense", "head.decoder"],
    ]],
    [scan, ["blocks.0.mixer.in_proj", "blocks.0.mixer.out_proj", "head"]],
    [images, ["fc"]],
  ];
  for (const [model, projections] of models) {
    const adapted = loraModel(model, all);
    assert.deepEqual(adapters(adapted), projections);
    assert.deepEqual(
      trained(adapted),
      projections.flatMap((each) => [`${each}.lora_A.weight`, `${each}.lora_B.weight`]),
    );
    assert.equal(countParameters(adapted) - countParameters(model), countParameters(adapted, isTrained));
    assert.deepEqual(
      adapted.tied?.map((pair) => pair.map(({ name }) => name)),
      model.tied?.map((pair) => pair.map(({ name }) => name)),
    );
    assert.ok(adapted.tied?.every((pair) => pair.every((each) => parametersOf(adapted).includes(each))) ?? true);
    assert.ok(trained(model).length === parametersOf(model).length, "the model itself is as it was");
  }
});

test("layers with adapters inside are right: attention, SwiGLU, Mamba, in and around others", async () => {
  const on = await device();
  const lengths = () => ({ lengths: Uint32Array.of(4, 2) });
  const cases: [Layer, object][] = [
    ...loraModel(tinyModel({ ...tiny, length: 4 }), all).layers.slice(1, 3).map((
      layer,
    ): [Layer, object] => [layer, {}]),
    ...loraModel(encoder, all).layers.slice(1, 2).map((layer): [Layer, object] => [layer, { sides: lengths }]),
    [loraModel(scan, all).layers[1], {}],
  ];
  for (const [layer, options] of cases) {
    const width = layer.parameters.find(({ name }) => /norm\.weight$/.test(name))!.shape[0];
    const { ok, rows } = await checkGradients(layer, [8, width], { device: on, width: 2, ...options });
    assert.ok(ok, JSON.stringify(rows.filter((row) => !row.ok)));
    assert.ok(rows.some(({ check }) => /lora_A\.weight/.test(check)));
  }
});

test("targets and what else is trained are found by an expression or a function", () => {
  const model = tinyModel();
  assert.deepEqual(adapters(loraModel(model, { rank: 2, targets: /1\.attention\.[qv]$/g })), [
    "blocks.1.attention.q",
    "blocks.1.attention.v",
  ]);
  const both = loraModel(model, { rank: 2, targets: (name) => name === "head", trained: /(^|\.)norm\.weight$/ });
  assert.deepEqual(trained(both), [
    ...[0, 1].flatMap((block) => ["attention", "mlp"].map((half) => `blocks.${block}.${half}.norm.weight`)),
    ...["norm.weight", "head.lora_A.weight", "head.lora_B.weight"],
  ]);
  const tied = loraModel(tinyModel({ ...tiny, tied: true }), { rank: 2, targets: /q$/, trained: /^embedding/ });
  assert.deepEqual(tied.tied!.flat().map(isTrained), [true, true]);
});

test("layers of one's own are looked into where they say how they are made", () => {
  const own = (layers: Layer[]) =>
    defineModel({ name: "own", inputs: { shape: [3] }, loss: meanSquaredError(), layers });
  const inner = sequential([linear("a", 3, 4), gelu(), linear("b", 4, 3)]);
  assert.deepEqual(adapters(loraModel(own([inner]), all)), ["a", "b"]);
  const closed = { ...inner, withParts: undefined, freeze: undefined };
  assert.deepEqual(adapters(loraModel(own([closed, linear("c", 3, 2)]), all)), ["c"]);
  const deaf: Layer = { ...inner, withParts: (change) => (change(linear("a", 3, 4)), inner) };
  assert.throws(() => loraModel(own([deaf]), { ...all, trained: /./ }), {
    name: "UserError",
    message: "loraModel: a cannot have an adapter: what a layer around it says with `withParts` makes it as it was",
  });
});

test("loraModel() refuses targets that are none, what is trained that is none, and a second set of adapters", () => {
  const model = createModel("llama-tiny");
  const refused = (given: object, message: string | RegExp, of = model) =>
    assert.throws(() => loraModel(of, { rank: 2, targets: /q$/, ...given }), { name: "UserError", message });
  refused(
    { targets: /q_proj/ },
    "loraModel: no projection of llama-tiny is a target; it has blocks.0.attention.q, blocks.0.attention.k, " +
      "blocks.0.attention.v, blocks.0.attention.out, blocks.0.mlp.gate, blocks.0.mlp.up, blocks.0.mlp.down, " +
      "blocks.1.attention.q and 21 more",
  );
  refused({ targets: "q" }, /^loraModel: targets must be a RegExp or a function of a projection's name, not "q"$/);
  refused({ rank: 0 }, /^loraModel: rank must be a whole number, 1 or more, not 0$/);
  refused({ alpha: -1 }, /^loraModel: alpha must be /);
  refused({ target: /q/ }, 'loraModel: there is no "target"; there are rank, alpha, targets, trained');
  refused(
    { trained: /nrom/ },
    "loraModel: trained means no parameter of llama-tiny; it has embedding.weight, blocks.0.attention.norm.weight, " +
      "blocks.0.attention.qkv.weight ...",
  );
  refused(
    {},
    "loraModel: llama-tiny+lora has adapters; give the model without, and all targets at once",
    loraModel(model, { rank: 2, targets: /v$/ }),
  );
  refused({}, /^loraModel: model must be a model, as createModel\(\) returns/, "llama-tiny" as unknown as Model);
});
