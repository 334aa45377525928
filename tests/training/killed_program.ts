/** A training that saves after each update and goes on where the process before it was killed; it says what it does. */
import { createHash } from "node:crypto";
import process from "node:process";
import { openDevices } from "../../lib/gpu/devices.ts";
import { llama } from "../../lib/models/llama.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { textSource } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { train } from "../../lib/training/train.ts";
import { deep } from "../runtime/support.ts";

const text = new TextEncoder().encode("to be or not to be, that is the question. ".repeat(20));

/** A digest of parameters and moments. */
async function digest(pipeline: Pipeline): Promise<string> {
  const hash = createHash("sha256");
  const { values, updates } = await pipeline.optimizerState();
  for (const all of [await pipeline.parameters(), values]) {
    for (const [name, array] of all) hash.update(name).update(new Uint8Array(array.buffer));
  }
  return hash.update(String(updates)).digest("hex");
}

const [folder, steps] = process.argv.slice(2);
const set = await openDevices(2);
const model = llama("killed", { ...deep, vocabulary: 256, width: 64, hidden: 64, dropout: 0.1 });
const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 0.003 }), seed: 3 });
const { resumed } = await train(pipeline, {
  schedule: twoStage(generate("1f1b-1", { devices: 2 })),
  data: { open: (from) => textSource(text, { length: deep.length, seed: 5, from }) },
  ...{ samples: 4, steps: Number(steps), resume: true, save: { folder, every: 1, keep: 2 } },
  onStep: ({ step }) => process.stdout.write(`step ${step}\n`),
});
process.stdout.write(`resumed ${resumed?.step ?? 0}, damaged ${resumed?.damaged.length ?? 0}\n`);
process.stdout.write(`end ${await digest(pipeline)}\n`);
pipeline.close();
set.close();
