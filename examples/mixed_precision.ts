/**
 * Trains in f16 with f32 master weights, and a loss scale that is far too large at first.
 * Prints each step's loss, or that it was skipped, and where: a step whose gradients overflow changes nothing.
 */
import { adamw, createModel, createPipeline, generate, openDevices, textSource, twoStage, UserError } from "twobp";

const set = await openDevices(2);
const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const options = { optimizer: adamw(), precision: "mixed", lossScale: 2 ** 24 } as const;
try {
  const pipeline = createPipeline(set, createModel("llama-tiny"), options);
  for (let step = 0; step < 12; step++) {
    const { loss, skipped, overflow } = await pipeline.step(schedule, source.next(4));
    console.log(skipped ? `skipped: ${JSON.stringify(overflow)}` : `loss ${loss.toFixed(3)}`);
  }
  pipeline.close();
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  console.log(error.message); // a device without f16, the bundled driver's for example
}
set.close();
