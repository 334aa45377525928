/**
 * Fine-tunes a model of a folder of Hugging Face's on a text, whole and through adapters (LoRA), by default the small one of the tests:
 * `examples/finetune.ts Llama-3.2-1B notes.txt`. Prints the losses of both, how the text goes on before and after, and that the weights and
 * adapters that were saved give the same text again.
 */
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { adamw, createPipeline, generate, loadWeights, type Model, openDevices, saveWeights, twoStage } from "twobp";
import { loraModel } from "twobp/models";
import { cosineDecay, generateText, loadTokenizer, openCorpus, train } from "twobp/train";
import { loadAdapters, loraModelFrom, modelFrom, saveAdapters } from "twobp/weights";

const [folder = "tests/fixtures/finetune", text = "tests/fixtures/finetune.txt"] = process.argv.slice(2);
const made = mkdtempSync(join(tmpdir(), "finetuned-")), adapters = join(made, "adapters"), length = 32, steps = 60;
const base = modelFrom(folder, { length }), tokenizer = await loadTokenizer(folder), corpus = await openCorpus(text);
const set = await openDevices(2), schedule = twoStage(generate("1f1b-1", { devices: 2 }));

/** A pipeline with a folder's weights, and adapters where there are some. */
function opened(model: Model, weights: string, learningRate = 0) {
  const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate }), seed: 1 });
  loadWeights(pipeline, weights);
  return pipeline;
}

/** How the model goes on, always with the likeliest token. */
const goesOn = async (pipeline: ReturnType<typeof opened>) =>
  (await generateText(pipeline, { prompt: "Jack and", tokenizer, temperature: 0, tokens: 12 })).text;

for (
  const [name, model, rate] of [
    ["whole", base, 0.02],
    ["LoRA", loraModel(base, { rank: 8, targets: /attention|mlp/ }), 0.05],
  ] as const
) {
  const pipeline = opened(model, folder, rate), losses: number[] = [];
  console.log(`${name}, before: Jack and${await goesOn(pipeline)}`);
  await train(pipeline, {
    ...{ schedule, steps, samples: 4, clip: 1, learningRate: cosineDecay({ steps, warmUp: 4 }) },
    data: corpus.train({ model, seed: 1, tokenizer }),
    onStep: ({ loss }) => losses.push(loss),
  });
  const after = await goesOn(pipeline);
  console.log(`${name}, after:  Jack and${after}; loss ${losses[0].toFixed(3)} to ${losses[steps - 1].toFixed(3)}`);
  if (name === "LoRA") await saveAdapters(pipeline, adapters);
  else await saveWeights(pipeline, join(made, "model.safetensors"));
  copyFileSync(join(folder, "config.json"), join(made, "config.json")); // now transformers loads it, too
  const again = name === "LoRA"
    ? opened(loraModelFrom(base, adapters), folder)
    : opened(modelFrom(made, { length }), made);
  if (name === "LoRA") loadAdapters(again, adapters);
  if (await goesOn(again) !== after) throw new Error("What was saved is another model");
  if (!(losses[steps - 1] < losses[0])) throw new Error("It has not learnt the text");
  for (const each of [pipeline, again]) each.close();
}
set.close();
rmSync(made, { recursive: true });
