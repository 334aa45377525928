/** A folder as Hugging Face has it, trained on by the command and by the library, against PyTorch and PEFT. */
import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { adamw, createPipeline, generate, type Model, openDevices, sgd, twoStage } from "twobp";
import { loraModel } from "twobp/models";
import { cosineDecay, generateText, loadTokenizer, openCorpus, train } from "twobp/train";
import { loadAdapters, loadWeights, loraModelFrom, modelFrom } from "twobp/weights";
import { readMetrics } from "../../lib/cli/metrics_file.ts";
import { openTensorFile } from "../../lib/weights/safetensors.ts";
import { start } from "../spawn.ts";

const root = mkdtempSync(join(tmpdir(), "twobp-finetune-"));
after(() => rmSync(root, { recursive: true, force: true }));
const at = (name: string) => join(root, name);
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const base = fixture("finetune"), text = fixture("finetune.txt");
const { settings, losses: pytorch, tokens } = JSON.parse(readFileSync(fixture("finetune.json"), "utf8"));
const { length, samples, microbatches, steps } = settings;
const schedule = generate("1f1b-1", { devices: 2, microbatches });
const common = ["--from", base, "--data", text, "--length", `${length}`, "--samples", `${samples}`];

/** What a safetensors file has, by name. */
function tensorsOf(path: string): Map<string, Float32Array> {
  const file = openTensorFile(path);
  try {
    return new Map([...file.tensors.keys()].toSorted().map((name) => [name, file.read(name)]));
  } finally {
    file.close();
  }
}

/** Trains as the command does, by the library. */
async function trained(model: Model, options: { steps: number; learningRate: number; weightDecay?: number }) {
  const { steps, learningRate, weightDecay } = options;
  const set = await openDevices(2), optimizer = adamw({ learningRate, ...weightDecay ? { weightDecay } : {} });
  const pipeline = createPipeline(set, model, { optimizer, seed: 1 });
  loadWeights(pipeline, base);
  const tokenizer = await loadTokenizer(base), corpus = await openCorpus(text), losses: number[] = [];
  await train(pipeline, {
    ...{ schedule: twoStage(schedule), steps, samples: samples * microbatches },
    data: corpus.train({ model, seed: 1, tokenizer }),
    ...weightDecay
      ? { learningRate: cosineDecay({ steps, warmUp: settings["warm-up"], least: settings["lr-end"] }), clip: 1 }
      : {},
    onStep: ({ loss }) => losses.push(loss),
  });
  const close = () => [pipeline, set].forEach((each) => each.close());
  return { pipeline, tokenizer, losses, close };
}

const lossesIn = (metrics: string) =>
  readMetrics(metrics).flatMap((line) => line.kind === "update" ? [line.loss as number] : []);

test("tokens, losses and weights of a folder's fine-tuning are PyTorch's, by the command and by the library", async () => {
  const tokenizer = await loadTokenizer(base);
  assert.deepEqual([...Array.from(tokenizer.encode(readFileSync(text, "utf8"))), tokenizer.end], tokens);

  const flags = ["steps", "microbatches", "lr", "lr-schedule", "warm-up", "lr-end", "weight-decay", "clip"];
  const asked = flags.flatMap((name) => [`--${name}`, `${settings[name]}`]);
  const files = ["--save", at("run"), "--metrics", at("m.jsonl")];
  const ended = await start("lib/cli/train.ts", [...common, ...asked, "--two-stage", ...files]).done;
  assert.equal(ended.code, 0, ended.stderr);
  const losses = lossesIn(at("m.jsonl"));
  assert.equal(losses.length, pytorch.length);
  losses.forEach((loss, step) => assert.ok(Math.abs(loss - pytorch[step]) < 2e-5, `${step}: ${loss} ${pytorch[step]}`));

  const saved = join(at("run"), readdirSync(at("run"))[0]), found = tensorsOf(join(saved, "model.safetensors"));
  const expected = tensorsOf(fixture("finetune.expected.safetensors")),
    before = tensorsOf(join(base, "model.safetensors"));
  assert.deepEqual([...found.keys()], [...expected.keys()]); // Hugging Face's names, the tied head left out as there
  let moved = 0, off = 0;
  for (const [name, values] of expected) {
    values.forEach((value, i) => {
      moved = Math.max(moved, Math.abs(value - before.get(name)![i]));
      off = Math.max(off, Math.abs(value - found.get(name)![i]));
    });
  }
  assert.ok(moved > 0.01 && off < 1e-3 * moved, `off by ${off}, of ${moved}`);

  const model = modelFrom(base, { length });
  const mine = await trained(model, { steps, learningRate: settings.lr, weightDecay: settings["weight-decay"] });
  assert.deepEqual(mine.losses, losses);
  // With the base's description beside them, the saved weights are a folder as the base is.
  for (const name of ["config.json", "tokenizer.json", "tokenizer_config.json"]) {
    copyFileSync(join(base, name), join(saved, name));
  }
  const set = await openDevices(1), again = modelFrom(saved, { length });
  const pipeline = createPipeline(set, again, { optimizer: sgd({ learningRate: 0 }) });
  loadWeights(pipeline, saved);
  const options = { prompt: "Jack", temperature: 0, tokens: 6, tokenizer };
  const made = await generateText(pipeline, options);
  assert.deepEqual(made.tokens, (await generateText(mine.pipeline, options)).tokens);
  pipeline.close();
  set.close();
  mine.close();
});

test("adapters that the command trains are those of the library, and `sample` puts them beside the base", async () => {
  const flags = ["--lora", "3", "--lora-alpha", "6", "--lora-targets", "attention\\.[qv]$|down", "--lr", "0.02"];
  const files = ["--adapters", at("adapters"), "--save", at("lora"), "--metrics", at("lora.jsonl")];
  const asked = [...common, ...flags, "--steps", "4", "--microbatches", `${microbatches}`, "--two-stage"];
  const ended = await start("lib/cli/train.ts", [...asked, ...files]).done;
  assert.equal(ended.code, 0, ended.stderr);
  const plain = modelFrom(base, { length });
  const mine = await trained(loraModel(plain, { rank: 3, alpha: 6, targets: /attention\.[qv]$|down/ }), {
    ...{ steps: 4, learningRate: 0.02 },
  });
  assert.deepEqual(lossesIn(at("lora.jsonl")), mine.losses);
  assert.ok(Math.abs(mine.losses[0] - pytorch[0]) < 2e-5); // they begin as nothing

  const model = loraModelFrom(plain, at("adapters")), set = await openDevices(1);
  const pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 0 }), seed: 77 });
  loadWeights(pipeline, base);
  loadAdapters(pipeline, at("adapters"));
  assert.deepEqual(await pipeline.parameters(), await mine.pipeline.parameters());
  const { tokenizer } = mine, options = { prompt: "Jack", temperature: 0, tokens: 8, tokenizer };
  const { text: made } = await generateText(pipeline, options);
  pipeline.close();
  set.close();
  mine.close();
  const sampling = ["--from", base, "--length", `${length}`, "--prompt", "Jack", "--temperature", "0", "--tokens", "8"];
  const sampled = await start("lib/cli/sample.ts", [...sampling, "--adapters", at("adapters")]).done;
  assert.equal(sampled.stdout, `Jack${made}\n`, sampled.stderr);
  const refused = await start("lib/cli/sample.ts", [...sampling, "--load", at("lora")]).done;
  assert.equal(refused.code, 2);
  assert.match(
    refused.stderr,
    /^sample: --load .* is of a training with --lora: give what that wrote to its --adapters [^\n]*\n$/,
  );
});

test("a folder of PEFT's says which projections have adapters, and the loss with them is PEFT's", async () => {
  const folder = fixture("lora"), model = loraModelFrom(modelFrom(folder), join(folder, "adapter"));
  const { loss, samples } = JSON.parse(readFileSync(join(folder, "fixture.json"), "utf8"));
  const [inputs, targets] = ["inputs", "targets"].map((name) =>
    Uint32Array.from(tensorsOf(join(folder, "batch.safetensors")).get(name)!)
  );
  const set = await openDevices(2), pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 0 }) });
  loadWeights(pipeline, folder);
  loadAdapters(pipeline, join(folder, "adapter"));
  const found = await pipeline.evaluate(schedule, { samples, inputs, targets });
  assert.ok(Math.abs(found.loss - loss) < 1e-5, `${found.loss} ${loss}`);
  pipeline.close();
  set.close();
  const error = (message: RegExp) => ({ name: "UserError", message });
  assert.throws(() => loraModelFrom(modelFrom(folder), folder), error(/adapter_config\.json/));
  const bert = modelFrom(fixture("bert"));
  assert.throws(
    () => loraModelFrom(bert, join(folder, "adapter")),
    error(/adapter_model\.safetensors has no adapter for a projection of bert: it has base_model\..* \.\.\.$/),
  );
});
