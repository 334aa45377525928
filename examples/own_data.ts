/**
 * Trains on data of one's own: sequences that count upwards from anywhere, modulo 97.
 * Prints the loss, which falls: the next number follows from the last.
 */
import { adamw, createPipeline, generate, openDevices, twoStage } from "twobp";
import { llama } from "twobp/models";
import type { Batch, BatchSource } from "twobp/train";

const length = 32, classes = 97;
let next = 0;
const counting: BatchSource<Batch> = {
  next(samples) {
    const inputs = new Uint32Array(samples * length), targets = new Uint32Array(samples * length);
    for (let at = 0; at < inputs.length; at++) {
      if (at % length === 0) next = (next + 41) % classes; // where a sequence starts
      inputs[at] = (next + at) % classes;
      targets[at] = (next + at + 1) % classes; // what the model is to say after `inputs[at]`
    }
    return { samples, inputs, targets };
  },
};

const model = llama("counter", { vocabulary: classes, width: 64, blocks: 2, heads: 2, hidden: 128, length });
const set = await openDevices(2);
const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 3e-3 }) });
const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const losses: number[] = [];
for (let step = 0; step < 30; step++) losses.push((await pipeline.step(schedule, counting.next(8))).loss);
console.log(losses.filter((_, step) => step % 6 === 5).map((loss) => loss.toFixed(3)).join(", "));
if (!(losses[29] < losses[0] / 2)) throw new Error("It has not learnt to count");
pipeline.close();
set.close();
