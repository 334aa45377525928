import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { Command } from "commander";
import { agreement } from "../../bench/agreement.ts";
import { loop } from "../../bench/loop.ts";
import { paper } from "../../bench/paper.ts";
import { sampling } from "../../bench/sampling.ts";
import { scaling } from "../../bench/scaling.ts";
import { throughput } from "../../bench/throughput.ts";
import { training } from "../../bench/training.ts";
import type { TrainingComparison } from "../../bench/training_report.ts";
import { differenceFigure, trainingComparisonSections } from "../../bench/training_report.ts";
import { createModel } from "../../lib/models/registry.ts";
import { openDevices } from "../../lib/gpu/devices.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { openCorpus } from "../../lib/train/corpus.ts";
import { cosineDecay } from "../../lib/train/learning_rates.ts";
import { adamw } from "../../lib/train/optimizers.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-training-"));
after(() => rmSync(folder, { recursive: true }));
const text = join(folder, "text.jsonl"); // a document a line
writeFileSync(text, `${JSON.stringify({ text: "to be or not to be, that is the question. ".repeat(8) })}\n`.repeat(30));

/** Runs a command in this process, and gives its JSON. */
async function json<T>(command: Command, ...args: string[]): Promise<T> {
  const path = join(folder, "report.json");
  await command.parseAsync([...args, "--json", path], { from: "user" });
  return JSON.parse(readFileSync(path, "utf8"));
}

test("bench training has the losses of a plain loop, without and with 2BP, and compares them with pairs of tokens", async () => {
  const args = [
    "--data",
    text,
    "--virtual",
    "--samples",
    "1",
    "--steps",
    "5",
    "--eval-every",
    "3",
    "--prompt",
    "b".repeat(60),
  ];
  const report = await json<TrainingComparison>(training, ...args);
  const { losses, ms, evaluations, bigrams, heldOut, tokens, same, gain } = report;
  assert.deepEqual(evaluations.map(({ step }) => step), [3, 5]);
  assert.deepEqual([ms.with.length, ms.without.length, gain.pairs, tokens.ofAnUpdate], [5, 5, 3, 2 * 64]);
  assert.ok(bigrams.entropy < 1.2 && Math.abs(bigrams.heldOut - bigrams.entropy) < 0.1, JSON.stringify(bigrams));
  assert.ok(heldOut < losses.with[0] && Math.abs(heldOut - evaluations[1].with) < 0.2);
  for (const each of evaluations) assert.ok(Math.abs(each.with - each.without) < 1e-5 * each.with);

  const set = await openDevices(2, { virtual: true }), model = createModel("llama-tiny");
  const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 3e-3 }), seed: 1 });
  const source = (await openCorpus(text, { heldOut: 0.1 })).train({ model, seed: 1 });
  const rate = cosineDecay({ steps: 5, warmUp: 1, least: 0.1 }), schedule = generate("1f1b-1", { devices: 2 });
  for (let step = 0; step < 5; step++) {
    const { loss } = await pipeline.step(schedule, await source.next(2), { rate: rate(step), clip: 1 });
    for (const curve of [losses.without, losses.with]) assert.ok(Math.abs(curve[step] - loss) < 1e-5 * loss);
  }
  pipeline.close();
  set.close();

  assert.equal(same.equalBits, losses.with.filter((loss, at) => loss === losses.without[at]).length);
  const other = { ...report, losses: { with: [2, 3], without: [2, 3.3] } };
  assert.deepEqual(differenceFigure(other).data[0].x, [2]);
  assert.deepEqual(
    trainingComparisonSections({ ...report, same: { ...same, largest: 0.1 } }).map(({ heading }) => heading),
    [
      ...["Loss", "Difference", "Evaluations", "Texts"],
    ],
  );
});

test("bench loop has as many pairs as it is told, of updates with the same bits", async () => {
  const { ms, cpuMs } = await json<Record<string, { train: number[]; step: number[]; ratio: { median: number } }>>(
    ...[loop, "--virtual", "--repeats", "1"] as [Command, ...string[]],
  );
  for (const { train, step, ratio } of [ms, cpuMs]) {
    assert.deepEqual([train.length, step.length], [1, 1]);
    assert.ok(Math.abs(ratio.median - train[0] / step[0]) < 1e-3 * ratio.median);
  }
});

test("bench sampling has a row for each position, whose two ways have the same logits", async () => {
  const args = ["--model", "mamba-tiny", "--length", "40", "--positions", "30,9", "--repeats", "1", "--quiet-check"];
  const { rows, machine } = await json<{
    rows: { position: number; kept: number; again: number }[];
    machine: { noise: { busyCores: number } };
  }>(sampling, ...args);
  assert.ok(machine.noise.busyCores >= 0);
  assert.deepEqual(rows.map(({ position }) => position), [9, 30]);
  for (const { kept, again } of rows) assert.ok(kept > 0 && again > 0);
});

test("every bench that times steps or tokens looks how quiet the machine is, if asked", () => {
  for (const command of [throughput, scaling, agreement, paper, loop, sampling, training]) {
    assert.ok(command.options.some(({ long }) => long === "--quiet-check"), command.name());
  }
});

test("what does not fit is refused before anything runs", async () => {
  const refused = (command: Command, pattern: RegExp, ...args: string[]) =>
    assert.rejects(command.parseAsync(args, { from: "user" }), (error: Error) => {
      assert.match(error.message, pattern);
      return !error.message.includes("\n");
    });
  await refused(training, /bert-tiny predicts no next token/, "--model", "bert-tiny");
  await refused(
    training,
    /the prompt has 70 tokens, and llama-tiny takes 64/,
    "--data",
    text,
    "--prompt",
    "a".repeat(70),
  );
  await refused(
    sampling,
    /behind 64 tokens there is no room for another in --length 64/,
    "--length",
    "64",
    "--positions",
    "64",
  );
});
