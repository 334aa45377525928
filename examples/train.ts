/**
 * Trains the same small model twice, without and with 2BP, on the same batches.
 * Prints both losses every fifth step: they agree but for rounding, since 2BP changes when gradients are made, not what they are.
 */
import { adamw, createModel, createPipeline, generate, openDevices, textSource, twoStage } from "twobp";

const base = generate("1f1b-1", { devices: 2 });
const schedules = [base, twoStage(base)];
const text = new TextEncoder().encode("to be or not to be, ".repeat(50));

const set = await openDevices(2);
const model = createModel("llama-tiny");
const runs = schedules.map((schedule) => ({
  schedule,
  pipeline: createPipeline(set, model, { optimizer: adamw({ learningRate: 2e-3 }), seed: 1 }),
  source: textSource(text, { length: 64, seed: 1 }), // equal seeds draw equal batches
}));
for (let step = 0; step <= 20; step++) {
  const losses: number[] = [];
  for (const { schedule, pipeline, source } of runs) losses.push((await pipeline.step(schedule, source.next(4))).loss);
  if (step % 5 === 0) {
    console.log(`step ${step}: loss ${losses.map((loss) => loss.toFixed(4)).join(" without, ")} with 2BP`);
  }
  if (Math.abs(losses[0] - losses[1]) > 1e-2) throw new Error(`2BP changed the training: ${losses}`);
}
for (const { pipeline } of runs) pipeline.close();
set.close();
