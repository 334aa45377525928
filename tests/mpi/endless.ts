/** A process of an MPI job that takes steps until it is killed, for `mpi.test.ts`. */
import process from "node:process";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { openWorld } from "../../lib/runtime/open_world.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { randomBatch, tiny, tinyModel } from "../runtime/support.ts";

const set = await openWorld();
const pipeline = createPipeline(set, tinyModel(), { optimizer: adamw() });
const schedule = generate("1f1b-1", { devices: 2 });
for (let step = 0; step < 100_000; step++) {
  await pipeline.step(schedule, randomBatch(tiny, 2));
  if (step === 0) process.stdout.write(`process ${set.process} is ${process.pid}, and steps\n`);
}
