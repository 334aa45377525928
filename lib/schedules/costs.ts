import type { Action } from "./actions.ts";

/** What actions and transfers cost. Any unit of time will do, as long as all of them use the same. */
export interface Costs {
  /**
   * Time the rank is busy with an action. `index` is its position in the rank's list, so that a measured run can be
   * replayed action by action.
   */
  duration(action: Action, rank: number, index: number): number;
  /**
   * Time from the end of the producing action until its output can be used on the other rank; 0 on the same rank. It
   * occupies neither rank. `F` is an activation, `I` a gradient.
   */
  transfer?(fromRank: number, toRank: number, kind: "F" | "I"): number;
  /** Time a rank needs after its last action, for the optimizer step. */
  tail?(rank: number): number;
  /**
   * Other ranks whose last actions, and a message from each, the tail waits for: they have gradients of the same parameters.
   * `simulate()` heeds it, `search()` does not.
   */
  tailAfter?(rank: number): readonly number[];
}

/** What one micro-batch costs on one stage. */
export interface StageCost {
  /** Forward. */
  f: number;
  /** Input gradient. */
  i: number;
  /** Weight gradient: of one micro-batch, or as a function of how many are concatenated. */
  w: number | ((width: number) => number);
  /** Full backward; i and one w when absent. */
  b?: number;
}

/** Costs measured or chosen stage by stage; `comm` is the time of every transfer between different ranks. */
export function stageCosts(stages: readonly StageCost[], comm = 0): Costs {
  const weight = (stage: StageCost, width: number) => typeof stage.w === "number" ? width * stage.w : stage.w(width);
  return {
    duration({ kind, stage, microbatches }) {
      const cost = stages[stage];
      if (kind === "F") return cost.f;
      if (kind === "I") return cost.i;
      if (kind === "W") return weight(cost, microbatches.length);
      return cost.b ?? cost.i + weight(cost, 1);
    },
    transfer: (from, to) => from === to ? 0 : comm,
  };
}

/** The same cost on every stage, each 1 unless said; B costs i + w, and a W of k micro-batches k * w. */
export function unitCosts(
  { f = 1, i = 1, w = 1, comm = 0 }: Partial<Record<"f" | "i" | "w" | "comm", number>> = {},
): Costs {
  return {
    duration({ kind, microbatches }) {
      if (kind === "F") return f;
      if (kind === "I") return i;
      return kind === "W" ? w * microbatches.length : i + w;
    },
    transfer: (from, to) => from === to ? 0 : comm,
  };
}

/** A link between two ranks, in the unit of time of the costs it is added to. */
export interface Link {
  /** Time until the first byte arrives. */
  latency: number;
  /** Bytes in a unit of time. */
  bandwidth: number;
}

/**
 * Costs whose transfers take latency plus bytes over bandwidth of the link they use. Transfers do not slow each other.
 *
 * @param link The link from one rank to another.
 * @param bytes Size of an activation (`F`) and of a gradient (`I`).
 */
export function withLinks(
  costs: Costs,
  link: (from: number, to: number) => Link,
  bytes: Record<"F" | "I", number>,
): Costs {
  return {
    ...costs,
    transfer(from, to, kind) {
      if (from === to) return 0;
      const { latency, bandwidth } = link(from, to);
      return latency + bytes[kind] / bandwidth;
    },
  };
}

/** Costs with the time that the host takes to issue each action, during which the device waits. */
export function withHostOverhead(costs: Costs, perAction: number): Costs {
  return { ...costs, duration: (action, rank, index) => perAction + costs.duration(action, rank, index) };
}
