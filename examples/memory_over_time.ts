/**
 * Follows the memory of a step, action by action, without and with 2BP.
 * Prints each rank's peak and the action it came in, and writes `memory.html` with a curve for each.
 */
import { adamw, createModel, createPipeline, generate, openDevices, textSource, twoStage } from "twobp";
import { memoryOverTime, writePage } from "twobp/report";

const set = await openDevices(2);
const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
const base = generate("1f1b-2", { devices: 2 });
const sections = [];
for (const schedule of [base, twoStage(base)]) {
  const name = schedule.policy ? `${schedule.name}, 2BP ${schedule.policy}` : schedule.name;
  const { timeline } = await pipeline.step(schedule, source.next(8), { timeline: true });
  timeline!.forEach((points, rank) => {
    const highest = points.reduce((most, point) => point.total > most.total ? point : most);
    console.log(`${name}, rank ${rank}: ${(highest.total / 2 ** 20).toFixed(1)} MiB in ${highest.action}`);
  });
  sections.push({ heading: name, figure: memoryOverTime(timeline!) });
}
writePage("memory.html", "Memory of a step", sections);
pipeline.close();
set.close();
