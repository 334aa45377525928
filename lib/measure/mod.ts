/**
 * Measurement: throughput and memory of schedules with and without 2BP, gains taken apart, predictions without a device, scaling,
 * kernels.
 *
 * What is compared is interleaved, step by step, and every gain comes with its quartiles and with what the simulator predicts from
 * the measured costs of F, I, W and B.
 *
 * ```ts
 * import { adamw, createModel, createPipeline, openDevices, schedulePair, textSource } from "twobp";
 * import { measureThroughput } from "twobp/measure";
 *
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
 * const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * const pairs = [schedulePair("1f1b-1", { devices: 2 })];
 * const { gains } = await measureThroughput(set, pipeline, { pairs, source, samples: 1, repeats: 5 });
 * console.log(gains[0].gain, gains[0].spread, gains[0].predicted);
 * pipeline.close();
 * set.close();
 * ```
 *
 * @module
 */
export {
  type AblationOptions,
  type AblationReport,
  type AblationRung,
  measureAblation,
  type Spread,
} from "./ablation/measure.ts";
export { type RungName, rungNames } from "./ablation/ladder.ts";
export {
  type AblationPrediction,
  type LadderCosts,
  predictAblation,
  type PredictedRung,
  type PredictedStall,
  type PredictionOptions,
  type RungCosts,
} from "./ablation/prediction.ts";
export {
  type Agreement,
  type AgreementReport,
  type AgreementRow,
  measureAgreement,
  type RatioOfRounds,
} from "./agreement.ts";
export { medianInterval } from "./bootstrap.ts";
export { calibrate, type CalibrateOptions, type Calibration, problemsOf } from "./calibrate.ts";
export type { CandidateResult, ProblemResult } from "./candidates.ts";
export type { MeasuredCosts, MeasuredStage, SumCosts, Transfer } from "./costs.ts";
export { diagnose, type DiagnoseOptions } from "./doctor/diagnose.ts";
export type {
  Depth,
  Diagnosis,
  Finding,
  FoundRuntime,
  KernelFault,
  KernelsCheck,
  PassingTimes,
  Rates,
  StepCheck,
  Surroundings,
  TriedDevices,
  ValueCheck,
} from "./doctor/diagnosis.ts";
export type { FoundAdapter, FoundDriver } from "../gpu/survey.ts";
export type { Epoch } from "./paper/epoch.ts";
export type { Cause, ExplainedWait, RankAccount, Segment, SegmentKind, StepAccount } from "./explain/account.ts";
export { type Alternative, type ExplainOptions, explainProfile, type Explanation } from "./explain/explain.ts";
export { errorBar, type PredictedOn, type PredictionOf } from "./error_bar.ts";
export { explainGain, type Gain } from "./gain.ts";
export {
  type Growth,
  type GrowthOptions,
  growthQuantities,
  type GrowthQuantity,
  type GrowthRow,
  measureGrowth,
} from "./growth.ts";
export { type DroppedRow, type KernelRow, type KernelsOptions, type KernelsReport, measureKernels } from "./kernels.ts";
export { largestFitting, type LargestOptions, type ModelNeed } from "./largest.ts";
export type { MeasuredPair } from "./measured_pairs.ts";
export {
  type MakePipeline,
  type Measurement,
  type MeasurementOptions,
  type PairSample,
  startMeasurement,
  type StepSample,
} from "./measurement.ts";
export {
  blankBatch,
  countRows,
  type DeviceMemory,
  dryPipeline,
  type MemoryOptions,
  type MemoryReport,
  type MemoryRow,
  type MemoryRunOptions,
  predictMemory,
  reportMemory,
} from "./memory.ts";
export type { Overheads } from "./overheads.ts";
export { measurePaper, predictPaper } from "./paper/measure.ts";
export type { PaperPeaks } from "./paper/memory.ts";
export { type PaperOptions, type PaperPart, paperParts } from "./paper/options.ts";
export type { PaperModelReport, PaperReport, PaperScalingRow } from "./paper/report.ts";
export { type PaperRun, paperRunOf, paperRuns, paperSamples } from "./paper/runs.ts";
export { scalePaper } from "./paper/scaling.ts";
export type { SizeChoice, SizeTrial } from "./paper/size.ts";
export { fewestPairs } from "./paper/times.ts";
export {
  driverOf,
  type ErrorSummary,
  type KeptErrors,
  type PredictedRow,
  type PredictedRun,
  predictedRun,
  type PredictionErrors,
  predictionErrors,
} from "./prediction_errors.ts";
export {
  type ClosedForm,
  closedForm,
  joinRuns,
  type ScalingGain,
  type ScalingReport,
  type ScalingRow,
  type ScalingRun,
} from "./scaling.ts";
export { stageMemories, type StageMemoryOptions } from "./stage_memory.ts";
export { standardProblems } from "./standard_problems.ts";
export { kept, median, quantile, quartiles } from "./statistics.ts";
export { measureStepCosts, type StepCostsOptions } from "./step_costs.ts";
export type { Exchange } from "./sums.ts";
export type { Peak } from "./peak.ts";
export { clusterOf } from "./profile/cluster.ts";
export { fromTrace, type FromTraceOptions } from "./profile/from_trace.ts";
export type { ActionTimes, Profile, StageProfile, TracedAction, TracedMessage, TracedStep } from "./profile/profile.ts";
export type { TraceSource } from "./profile/source.ts";
export type { Patience, Times } from "./stopwatch.ts";
export { countSteps, measureThroughput, type ThroughputOptions } from "./throughput.ts";
export type { ThroughputReport, ThroughputRow } from "./throughput_report.ts";
export type { Variant } from "./variant.ts";
