/**
 * Saves a model that was trained in two stages and loads it into four, on the same two devices.
 * Prints the loss of one batch before and after: they agree but for rounding, since the file knows nothing of stages.
 */
import { createModel, createPipeline, generate, loadWeights, openDevices, saveWeights, sgd, textSource } from "twobp";
import { interleavedPlacement } from "twobp/schedules";

const set = await openDevices(2);
const model = createModel("llama-tiny");
const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
const optimizer = sgd({ learningRate: 0.05 });

const two = createPipeline(set, model, { optimizer });
const inTwo = generate("1f1b-1", { devices: 2 });
for (let step = 0; step < 3; step++) await two.step(inTwo, source.next(4));
await saveWeights(two, "llama-tiny.safetensors");

const four = createPipeline(set, model, { optimizer, seed: 2, placement: interleavedPlacement(2, 2) });
const inFour = generate("interleaved-1f1b", { devices: 2, microbatches: 2 });
loadWeights(four, "llama-tiny.safetensors");

const batch = source.next(4);
const before = await two.step(inTwo, batch, { optimize: false });
const after = await four.step(inFour, batch, { optimize: false });
console.log(`two stages ${before.loss.toFixed(5)}, four stages ${after.loss.toFixed(5)}`);
if (Math.abs(before.loss - after.loss) > 1e-4) throw new Error("The checkpoint is another model");
two.close();
four.close();
set.close();
