/** The first process of a job, for `worker.test.ts`: kills its worker in the midst of a step, and says what it is told. */
import process from "node:process";
import { openWorld } from "../../lib/runtime/open_world.ts";
import { joinJob } from "../../lib/runtime/transports/mpi/job.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { textSource } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { tiny } from "./calls.ts";

const set = await openWorld({ workers: true }), pipeline = createPipeline(set, tiny(), { optimizer: adamw() });
const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(9)), { length: 8, seed: 1 });
const step = () => pipeline.step(generate("1f1b-1", { devices: 2 }), source.next(4));
const say = (text: string) => void process.stdout.write(`${text}\n`);
await step();
const { members: [, { pid }] } = await joinJob();
setTimeout(() => process.kill(pid, "SIGKILL"), 200);
try {
  while (true) await step();
} catch (error) {
  say(`cell: ${error}`);
}
await step().catch((error) => say(`next cell: ${error}`));
await new Promise((later) => setTimeout(later, 3000));
say("still here");
process.exit(0);
