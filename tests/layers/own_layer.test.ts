/** The layer of docs/own_layer.md is right, and trains in pipelines; so does the same layer with its backward given whole. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { after, test } from "node:test";
import { openDevices } from "../../lib/gpu/devices.ts";
import { checkGradients } from "../../lib/layers/check_gradients.ts";
import { embedding } from "../../lib/layers/embedding.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { linear } from "../../lib/layers/linear.ts";
import { backwardInput, backwardWeight, forward } from "../../lib/layers/run.ts";
import { unsplit } from "../../lib/layers/unsplit.ts";
import { crossEntropy } from "../../lib/losses/cross_entropy.ts";
import { defineModel } from "../../lib/models/define_model.ts";
import type { Model } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { close, device } from "../ops/support.ts";
import { project } from "../reference/linear.ts";
import { assertSameGradients, randomBatch, tiny } from "../runtime/support.ts";
import { checkLayer, checkSkippedInputGradient } from "./support.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-own-layer-"));
after(() => rmSync(folder, { recursive: true, force: true }));
after(close);

const root = new URL("../../", import.meta.url);

/** The layer, from the block of the page that is the module gated.ts. */
async function gatedOfPage(): Promise<(name: string, width: number) => Layer> {
  const page = readFileSync(new URL("docs/own_layer.md", root), "utf8");
  const [, block] = /```ts\n(\/\/ gated\.ts\n.*?)```/s.exec(page)!;
  const path = join(folder, "gated.ts");
  writeFileSync(
    path,
    block.replace(/from "twobp\/(\w+)"/g, (_, name) => `from "${new URL(`lib/${name}/mod.ts`, root)}"`),
  );
  return (await import(pathToFileURL(path).href)).gated;
}

test("the layer of docs/own_layer.md equals a float64 reference, and leaves for W what the page says", async () => {
  const gated = await gatedOfPage();
  const layer = gated("g", 6);
  await checkLayer(await device(), {
    layer,
    inputShape: [9, 6],
    reference: (x, p) => project(x, p.get("g.weight")!, 6).map((gate, i) => x[i] / (1 + Math.exp(-gate))),
    keeps: ["x", "dgate"],
  });
  await checkSkippedInputGradient(await device(), layer, [9, 6]);
  const report = await checkGradients(layer, [9, 6], { device: await device() });
  assert.deepEqual(report.rows.filter(({ ok }) => !ok), []);
});

test("its gradients are the same split and whole, with 2BP at any width and without, on two devices", async () => {
  const gated = await gatedOfPage();
  const { vocabulary, width, length } = tiny;
  const whole = (layer: Layer) =>
    unsplit({
      parameters: layer.parameters,
      outputShape: layer.outputShape,
      flops(shape) {
        const { f, i, w } = layer.flops(shape);
        return { f, b: i + w };
      },
      forward: (y, x, saved) => forward(layer, y, x, saved),
      backward(dx, dy, saved) {
        backwardInput(layer, dx, dy, saved);
        backwardWeight(layer, [saved]);
      },
    });
  const modelOf = (as: (layer: Layer) => Layer): Model =>
    defineModel({
      name: "gates",
      inputs: { shape: [length], vocabulary },
      layers: [
        embedding("tokens", vocabulary, width),
        ...[0, 1, 2].map((index) => as(gated(`gate.${index}`, width))),
        linear("head", width, vocabulary),
      ],
      loss: crossEntropy(),
    });
  const set = await openDevices(2);
  const batch = randomBatch(tiny, 4);
  const base = generate("1f1b-1", { devices: 2, microbatches: 4 });
  const gradientsOf = async (model: Model, schedule = base) => {
    const pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 0.1 }) });
    const { loss } = await pipeline.step(schedule, batch, { optimize: false });
    const gradients = await pipeline.gradients();
    pipeline.close();
    return { loss, gradients };
  };
  const expected = await gradientsOf(modelOf((layer) => layer));
  for (const options of [undefined, { policy: "fill" }, { policy: "end", width: 3 }] as const) {
    const schedule = options ? twoStage(base, options) : base;
    for (const model of [modelOf((layer) => layer), modelOf(whole)]) {
      const { loss, gradients } = await gradientsOf(model, schedule);
      assert.ok(Math.abs(loss - expected.loss) <= 1e-6 * expected.loss);
      assertSameGradients(gradients, expected.gradients, 1e-5, `${options?.policy ?? "without 2BP"}`);
    }
  }
  set.close();
});
