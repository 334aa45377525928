/** Folders of checkpoints: what is kept, what is passed over, and what is refused in one line. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { llama } from "../../lib/models/llama.ts";
import { createPipeline, type Pipeline, type PipelineOptions } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { Batch } from "../../lib/train/data.ts";
import { frozenModel } from "../../lib/models/frozen_model.ts";
import { prefetched } from "../../lib/train/prefetch.ts";
import { adamw, type OptimizerSpec, sgd } from "../../lib/train/optimizers.ts";
import type { SourcePosition } from "../../lib/train/position.ts";
import { lastCheckpoint, loadCheckpoint, saveCheckpoint } from "../../lib/training/checkpoint.ts";
import { train, type TrainOptions } from "../../lib/training/train.ts";
import { loadWeights } from "../../lib/weights/checkpoint.ts";
import { aligned, randomBatch } from "../runtime/support.ts";

const root = mkdtempSync(join(tmpdir(), "twobp-checkpoints-"));
let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => {
  set.close();
  rmSync(root, { recursive: true, force: true });
});

const schedule = generate("1f1b-1", { devices: 2 });
const model = () => llama("tiny", aligned);
const make = (options: Partial<PipelineOptions> = {}, of = model()) =>
  createPipeline(set, of, { optimizer: adamw({ learningRate: 0.01 }), seed: 3, ...options });
const newFolder = () => mkdtempSync(join(root, "run-"));

/** A source that draws batch 0, 1, 2 and so on, and knows where it stands. */
function source(from?: SourcePosition) {
  let drawn = Number(from?.drawn ?? 0);
  return {
    next: (): Batch => randomBatch(aligned, 4, drawn++),
    position: () => ({ source: "test", drawn }),
  };
}
const data = { open: source };

/** All that a pipeline has. */
async function valuesOf(pipeline: Pipeline) {
  const [parameters, { updates, values }] = await Promise.all([pipeline.parameters(), pipeline.optimizerState()]);
  return { parameters, updates, values };
}

/** Trains, and gives all that the pipeline has then. */
async function trained(options: Partial<TrainOptions>, given?: Pipeline) {
  const pipeline = given ?? make(), losses: number[] = [];
  const result = await train(pipeline, {
    ...{ schedule, data, samples: 4, onStep: ({ loss }) => losses.push(loss) },
    ...options,
  });
  const values = await valuesOf(pipeline);
  pipeline.close();
  return { result, losses, values };
}

test("train() saves every so many updates and at its end, keeps the last ones, and goes on as if it had never stopped", async () => {
  const folder = newFolder(), heldOut = [randomBatch(aligned, 4, 99)];
  const options = { clip: 0.5, accumulate: 2, evaluation: { every: 3, batches: heldOut, patience: 9 } };
  const whole = await trained({ ...options, steps: 10 });
  const save = { folder, every: 2, keep: 3 };
  const first = await trained({ ...options, steps: 7, save });
  assert.equal(first.result.resumed, undefined);
  assert.deepEqual(readdirSync(folder).toSorted(), ["step-000004", "step-000006", "step-000007"]);
  const second = await trained({ ...options, steps: 10, save, resume: true }, make({ seed: 8 }));
  assert.equal(second.result.resumed?.step, 7);
  assert.deepEqual(readdirSync(folder).toSorted(), ["step-000007", "step-000008", "step-000010"]);
  assert.deepEqual([...first.losses, ...second.losses], whole.losses);
  assert.deepEqual(second.values, whole.values);
  assert.equal(second.result.evaluation?.loss, whole.result.evaluation?.loss);
  assert.equal(second.result.steps, 10);
  const third = await trained({ ...options, steps: 10, save, resume: true }, make({ seed: 8 }));
  assert.deepEqual([third.losses, third.result.ended], [[], "steps"]);
  assert.deepEqual(third.values, whole.values, "what was over is over, and the pipeline has it");
});

test("batches of epochs are drawn again up to where the training stood, in the midst of one and at its end", async () => {
  const batches = (epoch: number) => [0, 1, 2, 3, 4].map((at) => randomBatch(aligned, 4, 5 * epoch + at));
  const options = { data: batches, samples: undefined, accumulate: 2 }; // three updates an epoch, the last of one batch
  const whole = await trained({ ...options, epochs: 3 });
  for (const stop of [1, 3, 4]) {
    const save = { folder: newFolder(), every: 3 };
    const first = await trained({ ...options, steps: stop, save });
    const second = await trained({ ...options, epochs: 3, save, resume: true }, make({ seed: 8 }));
    assert.deepEqual([...first.losses, ...second.losses], whole.losses, `after ${stop}`);
    assert.deepEqual(second.values, whole.values);
  }
});

test("a signal ends a training with a checkpoint, from which it goes on, also where batches are drawn ahead", async () => {
  const data = { open: (from?: SourcePosition) => prefetched(source(from), { samples: 4 }) };
  const save = { folder: newFolder(), every: 100 }, controller = new AbortController();
  const onStep = ({ step }: { step: number }) => void (step === 2 && controller.abort());
  const first = await trained({ steps: 6, data, save, signal: controller.signal, onStep });
  assert.deepEqual([first.result.ended, first.result.steps], ["signal", 3]);
  const second = await trained({ steps: 6, data, save, resume: true });
  assert.deepEqual(second.values, (await trained({ steps: 6 })).values);
});

test("what is damaged in any way is passed over, and the one before it is taken", async () => {
  const damages: readonly ((path: string) => void)[] = [
    (path) => rmSync(join(path, "training.json")),
    (path) => rmSync(join(path, "optimizer.safetensors")),
    (path) => truncateSync(join(path, "model.safetensors"), 5000),
    (path) => writeFileSync(join(path, "training.json"), ""),
    (path) => {
      const file = join(path, "training.json"), text = readFileSync(file, "utf8");
      writeFileSync(file, text.replace('"updates": 4', '"updates": 3'));
    },
    (path) => {
      const file = join(path, "optimizer.safetensors"), bytes = readFileSync(file);
      bytes[bytes.length - 9] ^= 1;
      writeFileSync(file, bytes);
    },
  ];
  const whole = await trained({ steps: 5 });
  for (const [index, damage] of damages.entries()) {
    const save = { folder: newFolder(), every: 2, keep: 9 };
    await trained({ steps: 4, save });
    damage(join(save.folder, "step-000004"));
    mkdirSync(join(save.folder, "step-000009"));
    const found = lastCheckpoint(save.folder)!;
    assert.deepEqual([found.step, found.position], [2, { source: "test", drawn: 2 }], `damage ${index}`);
    assert.equal(found.damaged.length, 2);
    assert.match(found.damaged[0], /step-000009: training\.json: there is no such file$/);
    const { values, result } = await trained({ steps: 5, save, resume: true });
    assert.equal(result.resumed?.step, 2);
    assert.deepEqual(values, whole.values);
    assert.equal(
      lastCheckpoint(join(save.folder, "step-000004"))?.step,
      4,
      "a whole one has taken the damaged one's place",
    );
  }
});

test("a checkpoint's weights are those that loadWeights() takes, and any JSON goes with it", async () => {
  const pipeline = make(), other = make({ seed: 9 }), folder = newFolder();
  await pipeline.step(schedule, randomBatch(aligned, 4, 1));
  const path = await saveCheckpoint(pipeline, folder, { step: 1, own: { note: "mine", list: [1, null] } });
  loadWeights(other, path);
  assert.deepEqual(await other.parameters(), await pipeline.parameters());
  const { own, step } = loadCheckpoint(other, path);
  assert.deepEqual([own, step], [{ note: "mine", list: [1, null] }, 1]);
  assert.deepEqual(await valuesOf(other), await valuesOf(pipeline));
  await assert.rejects(
    saveCheckpoint(other, folder, { step: 1 }),
    /^UserError: There is a checkpoint .*step-000001, and/,
  );
  pipeline.close();
  other.close();
});

test("a checkpoint of another model, precision, optimizer or setting is refused by name, and nothing has changed", async () => {
  const folder = newFolder(), pipeline = make();
  await pipeline.step(schedule, randomBatch(aligned, 4, 1));
  await saveCheckpoint(pipeline, folder, { step: 1 });
  pipeline.close();
  const groups = [{ match: /norm/, weightDecay: 0.5 }];
  const refused: [Pipeline, RegExp][] = [
    [make({ optimizer: sgd({ learningRate: 0.01 }) }), /optimizer is "adamw" there and "sgd" here, for "/],
    [
      make({ optimizer: adamw({ learningRate: 0.01, epsilon: 1e-6 }) }),
      /adamw epsilon is 1e-8 there and 0.000001 here, for "/,
    ],
    [
      make({ optimizer: adamw({ learningRate: 0.01, groups }) }),
      /weightDecay is [\d.]+ there and 0.5 here, for ".*norm/,
    ],
    [
      make({ optimizer: adamw({ learningRate: 0.01, betas: [0.9, 0.9] }) }),
      /betas is \[0.9,0.999\] there and \[0.9,0.9\]/,
    ],
    [make({ precision: "mixed" }), /precision is "f32" there and "mixed" here$/],
    [make({}, llama("other", aligned)), /model name is "tiny" there and "other" here$/],
    [make({}, llama("tiny", { ...aligned, hidden: 32 })), /model hidden is 16 there and 32 here$/],
    [make({}, llama("tiny", { ...aligned, dropout: 0.5 })), /model dropout is /],
    [make({}, frozenModel(model(), (name) => /embedding/.test(name))), /"embedding.*" is trained there and not here$/],
  ];
  for (const [other, message] of refused) {
    await other.step(schedule, randomBatch(aligned, 4, 2));
    const had = await valuesOf(other);
    assert.throws(() => loadCheckpoint(other, folder), message);
    assert.throws(() => loadCheckpoint(other, folder), /^UserError: [^\n]*step-000001 is of another training: [^\n]*$/);
    assert.deepEqual(await valuesOf(other), had);
    other.close();
  }
});

test("train() refuses what it could not go on from, before anything runs", async () => {
  const folder = newFolder(), save = { folder, every: 1 };
  await trained({ steps: 1, save });
  const plain = { next: source().next }, file = join(root, "file");
  writeFileSync(file, "");
  const own = newFolder(), byHand = make();
  await saveCheckpoint(byHand, own, { step: 1 });
  byHand.close();
  const refused: [Partial<TrainOptions>, RegExp][] = [
    [{ save }, /has a checkpoint of step 1: say `resume: true` to go on from there, or give another folder$/],
    [{ resume: true }, /`resume` goes on from a checkpoint in the folder of `save`, and there is no `save`$/],
    [{ save, resume: true, data: plain }, /the source does not stand where the checkpoint's stood/],
    [{ save, resume: true, data: source() }, /the source does not stand where the checkpoint's stood/],
    [
      { save: { folder: newFolder(), every: 1 }, data: plain },
      /a source must know where it stands: it has no position/,
    ],
    [{ save, resume: true, data: { open: () => source() } }, /what data.open\(\) gives does not stand where/],
    [
      { save, resume: true, data: { open: () => plain as never } },
      /what data.open\(\) gives must be a source with next/,
    ],
    [{ save, resume: true, clip: 2 }, /is of another training: clip is not said there and 2 here$/],
    [{ save, resume: true, samples: 8 }, /is of another training: samples is 4 there and 8 here$/],
    [{ save: { folder: file, every: 1 } }, /^UserError: Cannot write .*file: /],
    [{ save: { folder: join(file, "below"), every: 1 } }, /^UserError: Cannot write .*below: /],
    [{ save: { folder: own, every: 1 }, resume: true }, /was not saved by train\(\)/],
    [{ save: { folder, every: 0 } }, /train: save: every must be a whole number, 1 or more/],
  ];
  const pipeline = make(), had = await valuesOf(pipeline);
  for (const [change, message] of refused) {
    const options = { schedule, data, samples: 4, steps: 3, ...change };
    await assert.rejects(train(pipeline, options), message);
    await assert.rejects(train(pipeline, options), /^UserError: [^\n]*$/);
    assert.deepEqual(await valuesOf(pipeline), had);
  }
  const going = source(lastCheckpoint(folder)?.position);
  await train(pipeline, { schedule, data: going, samples: 4, steps: 3, save, resume: true });
  assert.deepEqual(await valuesOf(pipeline), (await trained({ steps: 3 })).values, "a source at the position goes on");
  pipeline.close();
});

test("a folder that cannot be written any more is told in one line, and the training is as after its last update", async () => {
  const folder = newFolder(), pipeline = make();
  let done = 0;
  const onStep = ({ step }: { step: number }) => {
    done = step + 1;
    if (step !== 2) return;
    rmSync(folder, { recursive: true });
    writeFileSync(folder, "in its place");
  };
  const options = { schedule, data, samples: 4, steps: 9, save: { folder, every: 1 }, onStep };
  await assert.rejects(train(pipeline, options), /^UserError: Cannot write [^\n]*run-[^\n]*$/);
  assert.ok(done >= 3 && done < 9);
  assert.deepEqual(await valuesOf(pipeline), (await trained({ steps: done })).values);
  pipeline.close();
});

/** A file system of a few kilobytes, where this user may make one. */
function smallDisk(): string | undefined {
  const folder = newFolder();
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=96k", "tmpfs", folder], { stdio: "ignore" });
    return folder;
  } catch {
    return undefined;
  }
}

test("a full disk is told in one line, leaves nothing behind, and what was saved before is there", async (context) => {
  const folder = process.platform === "linux" ? smallDisk() : undefined;
  if (folder === undefined) return context.skip("no small file system can be made here");
  const pipeline = make();
  try {
    await pipeline.step(schedule, randomBatch(aligned, 4, 1));
    await saveCheckpoint(pipeline, folder, { step: 1 });
    await pipeline.step(schedule, randomBatch(aligned, 4, 2));
    const had = await valuesOf(pipeline);
    const full = /^UserError: Cannot write [^\n]*step-000002: the disk is full$/;
    await assert.rejects(saveCheckpoint(pipeline, folder, { step: 2, keep: 1 }), full);
    assert.deepEqual(readdirSync(folder), ["step-000001"]);
    assert.equal(lastCheckpoint(folder)?.step, 1);
    assert.deepEqual(await valuesOf(pipeline), had);
  } finally {
    execFileSync("umount", [folder]);
    pipeline.close();
  }
});

test("gradients that wait for an update, and optimizers that do not say what they keep, are in no checkpoint", async () => {
  const folder = newFolder(), pipeline = make();
  await pipeline.step(schedule, randomBatch(aligned, 4, 1), { optimize: false });
  const waiting = /^UserError: The gradients of steps without an update are in no state of the optimizer: [^\n]*$/;
  await assert.rejects(saveCheckpoint(pipeline, folder, { step: 1 }), waiting);
  pipeline.clearGradients();
  await saveCheckpoint(pipeline, folder, { step: 1 });
  pipeline.close();
  const plain = sgd({ learningRate: 0.1 });
  const silent: OptimizerSpec = {
    ...plain,
    create: (...given) => ({ ...plain.create(...given), memory: undefined }),
  };
  const other = make({ optimizer: silent });
  await assert.rejects(
    saveCheckpoint(other, folder, { step: 2 }),
    /^UserError: The optimizer on rank 0 has no `memory`/,
  );
  other.close();
});
