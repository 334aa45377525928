/** Trainings with checkpoints on a set of devices, as a notebook makes them: what they come to, and hashes of what they save. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { isEqual, valuesOf } from "../../.ci/killed_training.ts";
import type { DeviceSet } from "../../lib/gpu/devices.ts";
import { createPipeline, type PipelineOptions } from "../../lib/runtime/pipeline.ts";
import { countDevices } from "../../lib/runtime/world.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { textSource } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { byteTokenizer } from "../../lib/train/tokenizer.ts";
import { lastCheckpoint, loadCheckpoint, saveCheckpoint } from "../../lib/training/checkpoint.ts";
import { generateText } from "../../lib/training/generate_text.ts";
import { train, type TrainOptions } from "../../lib/training/train.ts";
import { tiny } from "./calls.ts";

const text = new TextEncoder().encode("to be or not to be, that is the question. ".repeat(20)), length = 8;

const hashOf = (folder: string) => {
  const hash = createHash("sha256");
  for (const [name, array] of valuesOf(folder)) hash.update(name).update(new Uint8Array(array.buffer.slice(0)));
  return hash.digest("hex").slice(0, 16);
};

export async function trainings(set: DeviceSet, root: string): Promise<unknown> {
  const folder = join(root, "train"), copy = join(root, "copy");
  const open = (options: Partial<PipelineOptions> = {}) =>
    createPipeline(set, tiny(), { optimizer: adamw({ learningRate: 0.01 }), seed: 3, ...options });
  const optionsFor = (ranks: number): TrainOptions => ({
    schedule: twoStage(generate("1f1b-1", { devices: ranks, microbatches: 2 })),
    data: { open: (from) => textSource(text, { length, seed: 5, from }) },
    ...{ samples: 4, steps: 6, clip: 1, save: { folder, every: 2 } },
    evaluation: { every: 3, batches: [textSource(text, { length, seed: 6 }).next(4)] },
  });
  const ranks = countDevices(set), results: unknown[] = [];
  const note = ({ resumed, ...result }: Awaited<ReturnType<typeof train>>) =>
    results.push({ ...result, resumed: resumed?.step, saved: hashOf(folder) });

  const first = open(), stop = new AbortController();
  note(
    await train(first, {
      ...optionsFor(ranks),
      signal: stop.signal,
      onStep: ({ step }) => void (step === 2 && stop.abort()),
    }),
  );
  results.push(await train(first, optionsFor(ranks)).then(String, (error) => `${error}`.replaceAll(root, "ROOT")));
  first.close();

  const second = open();
  note(await train(second, { ...optionsFor(ranks), resume: true }));
  const { text: said } = await generateText(second, { tokenizer: byteTokenizer(), prompt: "to", tokens: 4 });
  second.close();

  const sharded = open({ replicas: ranks, shardOptimizer: true });
  note(await train(sharded, { ...optionsFor(1), samples: 4, steps: 8, resume: true }));
  sharded.close();

  const third = open(), { step } = loadCheckpoint(third, lastCheckpoint(folder)!.path);
  await saveCheckpoint(third, copy, { step });
  third.close();
  return { results, said, copied: isEqual(valuesOf(copy), valuesOf(folder)) };
}
