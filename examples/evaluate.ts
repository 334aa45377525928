/**
 * Evaluates a model on held-out text between its steps, with a schedule of forward passes alone.
 * Prints the loss of both texts every fifth step, and how often the model's likeliest next byte is right in the end.
 */
import { adamw, createModel, createPipeline, generate, openDevices, textSource, twoStage } from "twobp";
import { forwardOnly } from "twobp/schedules";

const text = new TextEncoder().encode("to be or not to be, that is the question: ".repeat(60));
const training = textSource(text.subarray(0, 2000), { length: 64, seed: 1 });
const heldOut = textSource(text.subarray(2000), { length: 64, seed: 2 }).next(8);

const set = await openDevices(2);
const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw({ learningRate: 3e-3 }) });
const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const forward = forwardOnly(schedule); // evaluate() takes `schedule` as well, and leaves its backward passes out
for (let step = 1; step <= 20; step++) {
  const { loss } = await pipeline.step(schedule, training.next(8));
  if (step % 5 > 0) continue;
  const evaluation = await pipeline.evaluate(forward, heldOut);
  console.log(`step ${step}: loss ${loss.toFixed(3)}, held out ${evaluation.loss.toFixed(3)}`);
}

const { outputs, outputShape: [rows, classes] } = await pipeline.evaluate(forward, heldOut, { outputs: true });
let right = 0;
for (let row = 0; row < rows; row++) {
  const logits = outputs!.subarray(row * classes, (row + 1) * classes);
  if (logits.indexOf(Math.max(...logits)) === heldOut.targets[row]) right++;
}
console.log(`${(100 * right / rows).toFixed(0)} % of the next bytes are right`);
if (right < rows / 4) throw new Error("It has not learnt the text");
pipeline.close();
set.close();
