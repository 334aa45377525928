/**
 * Searches the fastest schedule of four ranks and eight micro-batches in which no rank holds more than 1F1B does at its first.
 * Prints both makespans, the peak of each rank, and whether the result is proven to be the fastest (simulated).
 */
import { generate, peakMemory, search, simulate } from "twobp/schedules";

const devices = 4, microbatches = 8;
// What a stage holds of a micro-batch: its activations until W; derivatives count for nothing here.
const memory = () => ({ activations: 1, derivatives: 0 });

const base = generate("1f1b", { devices, microbatches });
const cap = Math.max(...peakMemory(base, memory));
const { schedule, makespan, proven } = await search({ devices, microbatches, memory, cap });
console.log(`1f1b: makespan ${simulate(base).makespan}, peaks ${peakMemory(base, memory).join(" ")}`);
console.log(`search: makespan ${makespan}, peaks ${peakMemory(schedule, memory).join(" ")}, proven: ${proven}`);
