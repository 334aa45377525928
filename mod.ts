/**
 * twobp: pipeline-parallel training research on WebGPU, with backward passes split in two (2BP).
 *
 * Plan a schedule, prove it correct, run it on several devices, measure it:
 *
 * ```ts
 * import { adamw, createModel, createPipeline, generate, openDevices, simulate, textSource, twoStage } from "twobp";
 *
 * const base = generate("1f1b-1", { devices: 2 });
 * const split = twoStage(base);
 * console.log(`simulated gain ${simulate(base).makespan / simulate(split).makespan}`);
 *
 * const set = await openDevices(2);
 * const model = createModel("llama-tiny");
 * const pipeline = createPipeline(set, model, { optimizer: adamw() });
 * const text = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * for (let step = 0; step < 3; step++) console.log(await pipeline.step(split, text.next(4)));
 * pipeline.close();
 * set.close();
 * ```
 *
 * @module
 */
export { byteVocabulary, formatBytes, parseBytes } from "./lib/bytes.ts";
export { UserError } from "./lib/errors.ts";
export {
  type Bytes,
  categories,
  categories as memoryCategories,
  type Category,
  type Category as MemoryCategory,
} from "./lib/memory.ts";

export { Device, type TimestampSlot, type View } from "./lib/gpu/device.ts";
export { type DeviceSet, type Mode, openDevices } from "./lib/gpu/devices.ts";
export type { Driver } from "./lib/gpu/driver.ts";
export { Gpu, type GpuInfo } from "./lib/gpu/gpu.ts";
export type { Kernel } from "./lib/gpu/kernel.ts";
export type { Ledger, Observer } from "./lib/gpu/ledger.ts";
export type { ParameterValues } from "./lib/gpu/parameters.ts";
export { type ActionMemory, actionsOf, highest, type LedgerPoint } from "./lib/gpu/ledger_timeline.ts";
export type { Pool, Storage } from "./lib/gpu/pool.ts";
export type { Interval } from "./lib/gpu/timing.ts";
export { type DType, empty, fromArray, release, retain, type Tensor, toArray, view } from "./lib/tensor.ts";

export type { BufferBlock, PlacedState, StateBuffer } from "./lib/layers/buffers.ts";
export type { Group } from "./lib/layers/group.ts";
export type { Flops, Layer, Reads } from "./lib/layers/layer.ts";
export { frozen } from "./lib/layers/frozen.ts";
export type { Initial, Parameter, Trainable } from "./lib/layers/parameter.ts";
export type { FrozenBlock, ParameterBlock, PlacedParameter } from "./lib/layers/parameter_blocks.ts";
export type { Placed } from "./lib/layers/placed.ts";
export { type Recompute, recomputed } from "./lib/layers/recompute.ts";
export type { ChildOptions, Saved } from "./lib/layers/saved.ts";
export { crossEntropy, type CrossEntropyOptions, type Loss, meanSquaredError, type Targets } from "./lib/losses/mod.ts";
export { bert, type BertConfiguration, bertConfigurations } from "./lib/models/bert.ts";
export { llama, type LlamaConfiguration, llamaConfigurations } from "./lib/models/llama.ts";
export { mamba, type MambaConfiguration, mambaConfigurations } from "./lib/models/mamba.ts";
export { resnet, type ResnetConfiguration, resnetConfigurations } from "./lib/models/resnet.ts";
export { frozenModel } from "./lib/models/frozen_model.ts";
export { defineModel, type Inputs, type ModelDefinition } from "./lib/models/define_model.ts";
export type { SideInput, SideInputs } from "./lib/models/side_inputs.ts";
export { type BatchShape, countParameters, type Model, type Task } from "./lib/models/model.ts";
export { createModel, modelNames } from "./lib/models/registry.ts";

export { type Action, formatAction, type Kind, type PolicyText, type Schedule } from "./lib/schedules/schedule.ts";
export type { StepEnd } from "./lib/schedules/program.ts";
export { generate, type GenerateOptions, scheduleNames } from "./lib/schedules/generators/generate.ts";
export { type PaperTwoStage, type Published, zoo, type ZooEntry } from "./lib/schedules/generators/zoo.ts";
export {
  type Costs,
  type Link,
  type StageCost,
  stageCosts,
  unitCosts,
  withHostOverhead,
  withLinks,
} from "./lib/schedules/price/costs.ts";
export { overlaps, withContention } from "./lib/schedules/price/contention.ts";
export { fromCsv, type FromCsvOptions, toCsv, type ToCsvOptions } from "./lib/schedules/csv/csv.ts";
export { simulate, type Simulation, type Span } from "./lib/schedules/price/simulate.ts";
export type { Held } from "./lib/schedules/price/holder.ts";
export {
  type Memory,
  type SharedInput,
  type SlotMemory,
  type StageMemory,
  unitMemory,
} from "./lib/schedules/price/memory.ts";
export { peakMemory } from "./lib/schedules/price/peak_memory.ts";
export { type MemoryPoint, memoryTimeline, type RankMemory } from "./lib/schedules/price/memory_timeline.ts";
export { mergeBackward } from "./lib/schedules/transforms/merge.ts";
export { pairOf, paperSchedules, type SchedulePair, schedulePair } from "./lib/schedules/transforms/pair.ts";
export { wholeBackward } from "./lib/schedules/transforms/whole.ts";
export {
  formatPolicy,
  parsePolicy,
  policies,
  type Policy,
  type PolicyKind,
} from "./lib/schedules/transforms/policy.ts";
export { type Progress, search, type SearchOptions, type SearchResult } from "./lib/schedules/search/search.ts";
export { twoStage, type TwoStageOptions } from "./lib/schedules/transforms/two_stage.ts";
export { type Sizes, sizesOf } from "./lib/schedules/check/sizes.ts";
export { validate } from "./lib/schedules/check/validate.ts";

export {
  type AnyOperation,
  type Candidate,
  type Choices,
  type Observed,
  type Operation,
  type OperationSpec,
  setChoices,
} from "./lib/ops/choice.ts";

export { partition } from "./lib/runtime/partition.ts";
export { createPipeline, type Pipeline, type PipelineOptions, type Precision } from "./lib/runtime/pipeline.ts";
export { parseRecompute, type RecomputePolicy, type RecomputeText } from "./lib/runtime/recompute.ts";
export type { NotFinite } from "./lib/runtime/finish.ts";
export type { RankPeak } from "./lib/runtime/rank.ts";
export type { StepOptions, StepResult } from "./lib/runtime/step.ts";
export {
  type Batch,
  type BatchArray,
  type BatchSource,
  ignored,
  maskedTextSource,
  textSource,
} from "./lib/train/data.ts";
export { type ImageFolder, imageFolder } from "./lib/train/image_folder.ts";
export type { Generator } from "./lib/random.ts";
export { syntheticImages } from "./lib/train/synthetic_images.ts";
export {
  adamw,
  type AdamWGroup,
  type AdamWOptions,
  type Optimizer,
  type OptimizerSpec,
  sgd,
  type SgdGroup,
  type SgdOptions,
} from "./lib/train/optimizers.ts";
export type { Grouped, Matching, OptimizerGroup } from "./lib/train/optimizer_groups.ts";

export { loadWeights, saveWeights } from "./lib/weights/checkpoint.ts";

export { calibrate, type CalibrateOptions, type Calibration, problemsOf } from "./lib/measure/calibrate.ts";
export type { CandidateResult, ProblemResult } from "./lib/measure/candidates.ts";
export type { MeasuredCosts, MeasuredStage, Transfer } from "./lib/measure/costs.ts";
export { explainGain, type Gain } from "./lib/measure/gain.ts";
export {
  type DeviceMemory,
  type MemoryOptions,
  type MemoryReport,
  type MemoryRow,
  type MemoryRunOptions,
  predictMemory,
  reportMemory,
} from "./lib/measure/memory.ts";
export type { Overheads } from "./lib/measure/overheads.ts";
export {
  type ClosedForm,
  closedForm,
  joinRuns,
  type ScalingGain,
  type ScalingReport,
  type ScalingRow,
  type ScalingRun,
} from "./lib/measure/scaling.ts";
export type { Patience, Times } from "./lib/measure/stopwatch.ts";
export { stageMemories, type StageMemoryOptions } from "./lib/measure/stage_memory.ts";
export type { ThroughputReport, ThroughputRow } from "./lib/measure/throughput_report.ts";
export type { Variant } from "./lib/measure/variant.ts";
export type { MakePipeline, MeasurementOptions } from "./lib/measure/measurement.ts";
export { countSteps, measureThroughput, type ThroughputOptions } from "./lib/measure/throughput.ts";
export { type Bundle, display, type DisplayOptions } from "./lib/report/display.ts";
export { plan, type PlanOptions, type TrainingPlan } from "./lib/planning/plan.ts";
export { stageWork, type StageWorkOptions } from "./lib/planning/stage_work.ts";

export { ganttFigure, type GanttOptions } from "./lib/report/gantt.ts";
export { ganttText, type GanttTextOptions } from "./lib/report/gantt_text.ts";
export { page, type Section, type Table, writePage } from "./lib/report/html.ts";
export { figurePng, type PngOptions } from "./lib/report/png.ts";
export { memoryFigure, memoryOverTime, type MemoryOverTimeOptions, memoryTable } from "./lib/report/memory.ts";
export { gaveUp, planTable } from "./lib/report/plan.ts";
export { progress, type ProgressLine } from "./lib/report/progress.ts";
export { runTimeline } from "./lib/report/run_timeline.ts";
export {
  scalingFigure,
  scalingGainTable,
  scalingNotes,
  scalingSections,
  scalingTable,
  scalingTitle,
} from "./lib/report/scaling.ts";
export { show } from "./lib/report/show.ts";
export { type ColumnTable, type Rows, table } from "./lib/report/show_table.ts";
export type { Timeline } from "./lib/report/timeline.ts";
export { chromeTrace, type TraceOptions } from "./lib/report/trace.ts";
export type { Figure } from "./lib/report/style.ts";
export { gainTable, throughputFigure, throughputTable, throughputTitle } from "./lib/report/throughput.ts";
