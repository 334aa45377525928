/** Every call of a pipeline once, on a set of devices, as a notebook makes them: results, and hashes of values. */
import { createHash } from "node:crypto";
import type { DeviceSet } from "../../lib/gpu/devices.ts";
import { llama } from "../../lib/models/llama.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { textSource } from "../../lib/train/data.ts";

export const tiny = () => llama("tiny", { vocabulary: 256, width: 8, blocks: 2, heads: 2, hidden: 16, length: 8 });

const hashOf = (values: ReadonlyMap<string, Float32Array>) => {
  const hash = createHash("sha256");
  for (const [name, array] of values) hash.update(name).update(new Uint8Array(array.buffer.slice(0)));
  return hash.digest("hex").slice(0, 16);
};

export async function calls(set: DeviceSet): Promise<unknown> {
  const model = tiny();
  const optimizer = adamw({ learningRate: 0.01, groups: [{ match: /norm/, weightDecay: 0 }] });
  const parts = [model.layers.slice(0, 1), model.layers.slice(1)];
  const pipeline = createPipeline(set, model, { optimizer, parts, seed: 3 });
  const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(20)), { length: 8, seed: 1 });
  const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
  const first = await pipeline.step(schedule, source.next(4), { clip: 1 });
  // At once, as a checkpoint asks.
  const [parameters, state, moments] = await Promise.all([
    pipeline.parameters(),
    pipeline.state(),
    pipeline.optimizerState(),
  ]);
  const wrong = await pipeline.step(schedule, { ...source.next(4), inputs: new Uint32Array(3) }).then(String, String);
  const batch = source.next(4), second = await pipeline.step(schedule, batch, { optimize: false });
  const gradients = await pipeline.gradients();
  pipeline.clearGradients();
  const third = await pipeline.step(schedule, source.next(4));
  pipeline.setParameters(parameters);
  pipeline.setState(state);
  pipeline.setOptimizerState(moments);
  const again = await pipeline.step(schedule, batch);
  const { loss, outputs } = await pipeline.evaluate(schedule, batch, { outputs: true });
  const heard: number[] = [];
  const { tokens } = await pipeline.generate([1, 2], { tokens: 3, onToken: ({ token }) => heard.push(token) });
  const broken = await pipeline.generate([1, 2], {
    onToken() {
      throw new Error("not heard");
    },
  }).then(String, String);
  const last = hashOf(await pipeline.parameters());
  pipeline.close();
  return {
    losses: [first.loss, second.loss, third.loss, again.loss, loss],
    hashes: [...[parameters, gradients, moments.values, new Map([["outputs", outputs!]])].map(hashOf), last],
    ...{ wrong, broken, heard, tokens: [...tokens], peaks: again.peaks.length },
  };
}
