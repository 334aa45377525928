import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { adamw, createModel, createPipeline, openDevices, saveWeights } from "twobp";
import { generateText, saveCheckpoint } from "twobp/train";
import { program, start } from "../spawn.ts";

const root = mkdtempSync(join(tmpdir(), "twobp-sample-"));
after(() => rmSync(root, { recursive: true, force: true }));
const at = (name: string) => join(root, name);

const { run: sample, close } = program("lib/cli/sample.ts");
after(close);

test("the command writes the text that generateText() makes of a checkpoint, of a file, on two devices and in JSON", async () => {
  const set = await openDevices(1);
  const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw(), seed: 9 });
  const options = { temperature: 0.5, topK: 30, topP: 0.9, seed: 4, tokens: 12 };
  const { text, tokens } = await generateText(pipeline, { prompt: "to be", ...options });
  await saveCheckpoint(pipeline, at("run"), { step: 3 });
  await saveWeights(pipeline, at("weights.safetensors"));
  pipeline.close();
  set.close();
  const flags = ["--prompt", "to be", "--temperature", "0.5", "--top-k", "30", "--top-p", "0.9", "--seed", "4"];
  // deno-lint-ignore no-control-regex -- they are what is left out
  const printable = text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "\ufffd");
  const ended = await sample(...flags, "--tokens", "12", "--load", at("run"), "--json", at("r.json"));
  assert.equal(ended.code, 0, ended.stderr);
  assert.equal(ended.stdout, `to be${printable}\n`);
  assert.match(ended.stderr, /llama-tiny .* on 1 real device .*weights of .*step-000003/);
  assert.match(ended.stderr, /12 tokens, the first after \d+ ms, then [\d.]+ tokens\/s: all are made\./);
  const report = JSON.parse(readFileSync(at("r.json"), "utf8"));
  assert.deepEqual([report.prompt, report.text, report.tokens], ["to be", text, [...tokens]]);
  assert.equal(report.tokenMs.length, 11);
  const other = await sample(...flags, "--tokens", "12", "--load", at("weights.safetensors"), "--devices", "2");
  assert.equal(other.stdout, ended.stdout);
});

test("logits that are no numbers are said in one line, with what to do", async () => {
  const set = await openDevices(1);
  const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw(), seed: 9 });
  const [[name, values]] = await pipeline.parameters();
  pipeline.setParameters(new Map([[name, values.map(() => 3e38)]]), { partial: true });
  await saveWeights(pipeline, at("huge.safetensors"));
  pipeline.close();
  set.close();
  const ended = await start("lib/cli/sample.ts", ["--load", at("huge.safetensors"), "--tokens", "2"]).done;
  assert.equal(ended.code, 2, ended.stderr);
  const [last] = ended.stderr.trimEnd().split("\n").slice(-1);
  assert.match(
    last,
    /^sample: llama-tiny gives no numbers: generate: at position 4 .*; the weights are of a training that/,
  );
  assert.doesNotMatch(ended.stderr, /^ +at /m);
});

const refused: [string, string[], RegExp][] = [
  ["an unknown flag", ["--heat", "1"], /unknown option '--heat'/],
  ["a temperature below 0", ["--temperature", "-1"], /must be a number from 0/],
  ["no top-k", ["--top-k", "0"], /must be a whole number from 1/],
  ["a model that does not go on", ["--model", "bert-tiny"], /bert-tiny fills in masked tokens/],
  ["two models", ["--model", "llama-tiny", "--from", root], /are two models: give one of the two/],
  ["a length without --from", ["--length", "9"], /--length is for a model of --from/],
  [
    "a prompt that is too long",
    ["--prompt", "a".repeat(65)],
    /the prompt has 65 tokens, and llama-tiny takes 64 at most/,
  ],
  ["an empty prompt", ["--prompt", ""], /the prompt has no token/],
  ["weights that are not there", ["--load", at("nowhere")], /--load .*nowhere: there is no such file or folder/],
  ["more ranks than layers", ["--devices", "16"], /--devices 16 are more than the \d+ layers of llama-tiny/],
];
for (const [what, args, message] of refused) {
  test(`the command refuses ${what} in one line, with exit code 2`, async () => {
    const ended = await sample(...args);
    assert.equal(ended.code, 2, ended.stderr);
    assert.match(ended.stderr, message);
    assert.equal(ended.stderr.trim().split("\n").length, 1);
    assert.equal(ended.stdout, "");
  });
}

test("a checkpoint that is damaged is not taken for another", async () => {
  mkdirSync(at("damaged/step-000001"), { recursive: true });
  writeFileSync(at("damaged/step-000001/training.json"), "{");
  const ended = await sample("--load", at("damaged"));
  assert.equal(ended.code, 2, ended.stderr);
  assert.match(ended.stderr, /no checkpoint in it is whole/);
});
