/**
 * Pipeline schedules as data: generate, split, validate, simulate, search, price in memory, read and write. Needs no GPU and loads
 * no package.
 *
 * A schedule says for each rank (a place in the pipeline) which actions it runs, in order: F forward, I input gradient, W weight
 * gradient, B both in one. 2BP is a transform over any schedule of F and B, a policy says when W runs.
 *
 * ```ts
 * import { generate, simulate, twoStage, validate } from "twobp/schedules";
 *
 * const base = generate("1f1b-1", { devices: 4 });
 * const split = twoStage(base, { policy: "fill" });
 * validate(split); // throws, with rank, action and remedy, where something is wrong
 * console.log(simulate(base).makespan, simulate(split).makespan); // 21 15, in units of a forward
 * ```
 *
 * One of one's own is an object. Whoever needs to know who waits for whom reads its {@link Program}, as everything here does:
 *
 * ```ts
 * import { actionMaker, linearPlacement, lower, type Schedule, validate } from "twobp/schedules";
 *
 * const make = actionMaker(1);
 * const actions = [0, 1].map((rank) => [make("F", rank, 0), make("B", rank, 0)]);
 * const mine: Schedule = { name: "mine", placement: linearPlacement(2), actions };
 * validate(mine);
 * const { nodes, from } = lower(mine);
 * console.log(nodes, from.length); // 8 2: four actions and two ends of two parts; an activation and a gradient
 * ```
 *
 * @module
 */
export { formatBytes, parseBytes } from "../bytes.ts";
export { UserError } from "../errors.ts";

export {
  type Cluster,
  clusterCosts,
  type ClusterLink,
  clusterNetwork,
  type ClusterStage,
  readCluster,
} from "./price/cluster.ts";
export {
  type Costs,
  type Link,
  type StageCost,
  stageCosts,
  unitCosts,
  withHostOverhead,
  withLinks,
  withStall,
} from "./price/costs.ts";
export { type Action, actionMaker, formatAction, type Kind, type PolicyText, type Schedule } from "./schedule.ts";
export {
  ACTIVATION,
  B,
  F,
  GRADIENT,
  I,
  inputOf,
  isMessage,
  lower,
  nodeKinds,
  NOTHING,
  outputOf,
  type Program,
  R,
  REDUCE,
  type StepEnd,
  SUM,
  TIED,
  type Unordered,
  UPDATE,
  W,
} from "./program.ts";

export { generate, type GenerateOptions, scheduleNames } from "./generators/generate.ts";
export { interleavedPlacement, linearPlacement, vPlacement, zigzagPlacement } from "./generators/placement.ts";
export { type PaperTwoStage, type Published, zoo, type ZooEntry } from "./generators/zoo.ts";

export { forwardOnly } from "./transforms/forward_only.ts";
export { mergeBackward } from "./transforms/merge.ts";
export { pairOf, paperSchedules, type SchedulePair, schedulePair } from "./transforms/pair.ts";
export { formatPolicy, parsePolicy, policies, type Policy, type PolicyKind } from "./transforms/policy.ts";
export { plainMakespan } from "./transforms/plain.ts";
export { recomputeAhead } from "./transforms/recompute_ahead.ts";
export { splitStages } from "./transforms/split_stages.ts";
export { twoStage, type TwoStageOptions } from "./transforms/two_stage.ts";
export { wholeBackward } from "./transforms/whole.ts";

export { type Sizes, sizesOf } from "./check/sizes.ts";
export { validate } from "./check/validate.ts";

export { overlaps, withContention } from "./price/contention.ts";
export type { Held } from "./price/holder.ts";
export {
  type AheadMemory,
  type Memory,
  type SharedInput,
  type SlotMemory,
  type StageMemory,
  unitMemory,
} from "./price/memory.ts";
export { type MemoryPoint, memoryTimeline, type RankMemory } from "./price/memory_timeline.ts";
export { peakMemory } from "./price/peak_memory.ts";
export { type Neighbours, type Network, type ReplicaOptions, type SumWay, withReplicas } from "./price/replicas.ts";
export { simulate, type Simulation, type Span, type SumSpan } from "./price/simulate.ts";

export { type Progress, search, type SearchOptions, type SearchResult } from "./search/search.ts";

export { fromCsv, type FromCsvOptions, toCsv, type ToCsvOptions } from "./csv/csv.ts";
export {
  type Cell as CsvCell,
  type CellAction as CsvAction,
  formatTable as formatCsvTable,
  parseTable as parseCsvTable,
  type Row as CsvRow,
} from "./csv/table.ts";
