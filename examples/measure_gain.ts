/**
 * Measures what 2BP gains on two schedules, with steps without and with it by turns.
 * Prints for each the gain, its quartiles, and what the simulator predicts from the measured times of F, I, W and B. Three pairs
 * are few: a figure to be believed takes 21 and a machine that does nothing else.
 */
import { adamw, createModel, createPipeline, measureThroughput, openDevices, schedulePair, textSource } from "twobp";

const set = await openDevices(2);
const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
const { gains, mode } = await measureThroughput(set, pipeline, {
  pairs: ["1f1b-1", "1f1b-2"].map((name) => schedulePair(name, { devices: 2 })),
  source: textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 }),
  samples: 1,
  repeats: 3,
});
for (const { schedule, gain, spread, predicted } of gains) {
  const quartiles = spread.map((value) => value.toFixed(2)).join(" to ");
  console.log(`${schedule}, ${mode}: gain ${gain.toFixed(2)} (${quartiles}), predicted ${predicted.toFixed(2)}`);
}
pipeline.close();
set.close();
