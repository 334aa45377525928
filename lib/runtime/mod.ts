/**
 * Pipelines that run: devices, a model placed on them, steps, and what a step says of time and memory.
 *
 * ```ts
 * import { createModel, generate, twoStage } from "twobp";
 * import { createPipeline, openDevices } from "twobp/runtime";
 * import { adamw, textSource } from "twobp/train";
 *
 * const set = await openDevices(2); // real where there are two, else virtual: one in turn, times composed
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
 * const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * const { loss, peaks } = await pipeline.step(twoStage(generate("1f1b-1", { devices: 2 })), source.next(4));
 * console.log(set.mode, loss, peaks.map(({ total }) => total)); // bytes at most, on each rank
 * pipeline.close();
 * set.close();
 * ```
 *
 * @module
 */
export { type Bytes, categories, type Category } from "../memory.ts";

export { Device, type TimestampSlot, type View } from "../gpu/device.ts";
export { type DeviceSet, type Mode, openDevices } from "../gpu/devices.ts";
export type { Driver } from "../gpu/driver.ts";
export type { Implementation } from "../gpu/implementation.ts";
export { Gpu, type GpuInfo } from "../gpu/gpu.ts";
export type { DeviceKind, GpuKind } from "../gpu/kind.ts";
export type { Ledger } from "../gpu/ledger.ts";
export { type ActionMemory, actionsOf, highest, type LedgerPoint } from "../gpu/ledger_timeline.ts";
export { largestBuffer, type Storage } from "../gpu/pool.ts";
export type { Interval } from "../gpu/timing.ts";

export {
  type Clock,
  type ClockBounds,
  type ClockReading,
  type Clocks,
  clocksBetween,
  type PeerReading,
} from "./clocks.ts";
export type { EvaluateOptions, EvaluationResult } from "./evaluate.ts";
export type { GeneratedToken, GenerationOptions, GenerationResult } from "./generate.ts";
export type { NotFinite } from "./finish.ts";
export type { OptimizerState } from "./optimizer_state.ts";
export { formatLayout, parseLayout } from "./layout.ts";
export { openWorld, type ProcessSet, type WorldOptions } from "./open_world.ts";
export { partition } from "./partition.ts";
export { createPipeline, type Pipeline, type PipelineOptions, type Precision } from "./pipeline.ts";
export type { RankPeak } from "./rank.ts";
export { readClocks } from "./read_clocks.ts";
export type { SumTime } from "./replica_sums.ts";
export { parseRecompute, type RecomputePolicy, type RecomputeText, withRecompute } from "./recompute.ts";
export type { SamplingOptions } from "./sampling.ts";
export type { Stall } from "./run.ts";
export type { StepOptions, StepResult } from "./step.ts";
export { parseSums, sumsOf, type SumsPolicy } from "./sums.ts";
export type { World, WorldSet } from "./world.ts";
