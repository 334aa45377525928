/**
 * Plans a model for two devices of 10 MiB each, then trains a step under that budget.
 * Prints the schedule, what is recomputed, each rank's predicted peak beside what the step needed, and what less would do.
 */
import { adamw, createModel, createPipeline, openDevices, plan, textSource, UserError } from "twobp";

const budget = 10 * 2 ** 20;
const model = createModel("llama-tiny");
const options = { devices: 2, microbatches: 4, software: true }; // software: the devices of this example are
const { schedule, parts, recompute, sums, peak } = await plan(model, { ...options, budget });
console.log(`${schedule.name}, policy ${schedule.policy ?? "none"}; recomputed by stage: ${recompute.join(", ")}`);

const set = await openDevices(2);
const pipeline = createPipeline(set, model, {
  ...{ optimizer: adamw(), placement: schedule.placement, parts, recompute, sums },
  budget: 1.02 * budget, // messages wait for other times than in a prediction
});
const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
const { loss, peaks } = await pipeline.step(schedule, source.next(4));
const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(2)} MiB`;
peaks.forEach(({ needed }, rank) =>
  console.log(`rank ${rank}: predicted ${mebibytes(peak[rank])}, needed ${mebibytes(needed)}`)
);
console.log(`loss ${loss.toFixed(3)} under ${mebibytes(budget)}`);
pipeline.close();
set.close();

try {
  await plan(model, { ...options, budget: 2 ** 20 });
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  console.log(error.message);
}
