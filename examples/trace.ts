/**
 * Takes a step with 2BP and writes it as a trace, and beside it the same step as the simulator sees it with equal costs.
 * Prints the names of both files: open them in ui.perfetto.dev.
 */
import {
  adamw,
  createModel,
  createPipeline,
  generate,
  openDevices,
  runTimeline,
  simulate,
  textSource,
  twoStage,
} from "twobp";
import { chromeTrace } from "twobp/report";
import { writeFileSync } from "node:fs";

const schedule = twoStage(generate("1f1b-2", { devices: 2 }));
writeFileSync("simulated.trace.json", chromeTrace(schedule, simulate(schedule), { title: "1f1b-2, simulated" }));
console.log("simulated.trace.json");

const set = await openDevices(2);
const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
await pipeline.step(schedule, source.next(4)); // the first step compiles kernels
const result = await pipeline.step(schedule, source.next(4));
const timeline = runTimeline(schedule, set.mode, result); // undefined where the devices have no timestamps
if (timeline) {
  const name = `${set.mode}.trace.json`;
  writeFileSync(name, chromeTrace(schedule, timeline, { title: `1f1b-2, ${set.mode}` }));
  console.log(name);
}
pipeline.close();
set.close();
