/** The training that `kills.ts` and `job_kills.ts` kill, and what it ends with. */
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { adamw, createPipeline, type DeviceSet, generate, textSource, twoStage } from "twobp";
import { llama } from "twobp/models";
import { cosineDecay, train, type TrainStep } from "twobp/train";
import { countDevices } from "../lib/runtime/world.ts";
import { lastWhole } from "../lib/training/checkpoint_folder.ts";
import { openTensorFile } from "../lib/weights/safetensors.ts";

/** It is saved after so many updates. */
export const every = 3;

/** The training, a rank on each device, which goes on from what is in its folder. */
export async function trainIn(folder: string, set: DeviceSet, steps: number, onStep: (step: TrainStep) => void) {
  const text = new TextEncoder().encode("to be or not to be, that is the question. ".repeat(20));
  const length = 16, sizes = { vocabulary: 256, width: 32, blocks: 2, heads: 2, hidden: 64, length };
  const pipeline = createPipeline(set, llama("killed", { ...sizes, dropout: 0.1 }), {
    ...{ optimizer: adamw({ learningRate: 3e-3 }), seed: 3 },
  });
  await train(pipeline, {
    schedule: twoStage(generate("1f1b", { devices: countDevices(set), microbatches: 2 })),
    data: { open: (from) => textSource(text, { length, seed: 5, from }) },
    ...{ samples: 4, steps, clip: 1, learningRate: cosineDecay({ steps, warmUp: 10 }) },
    ...{ resume: true, save: { folder, every, keep: 2 } },
    onStep,
  });
  pipeline.close();
}

/** What it ends with: parameters and what the optimizer keeps, by file and name. */
export function valuesOf(folder: string): Map<string, Float32Array> {
  const { path } = lastWhole(folder)!, values = new Map<string, Float32Array>();
  for (const file of ["model", "optimizer"]) {
    const opened = openTensorFile(join(path, `${file}.safetensors`));
    for (const name of opened.tensors.keys()) values.set(`${file} ${name}`, opened.read(name));
    opened.close();
  }
  return values;
}

export type Values = ReturnType<typeof valuesOf>;

/** Whether all bits are the same. */
export function isEqual(one: Values, other: Values): boolean {
  const bytes = (array: Float32Array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  return one.size === other.size && one.size > 0 &&
    [...one].every(([name, values]) => other.has(name) && bytes(values).equals(bytes(other.get(name)!)));
}
