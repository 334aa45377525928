/** Tied parameters: one parameter in two places, whose gradients belong together. */
import type { Layer } from "../layers/layer.ts";
import { isTrained, type Parameter } from "../layers/parameter.ts";
import type { Model } from "../models/model.ts";
import type { StepEnd } from "../schedules/program.ts";

/** Two parameters that are one, the original first. */
export interface Tie {
  /** Both. */
  readonly parameters: readonly Parameter[];
  /** The stage of each. */
  readonly stages: readonly number[];
  /** The rank of each. */
  readonly ranks: readonly number[];
}

/** The tied parameters of a model that is cut and placed so, but for frozen ones, which have no gradients to add up. */
export function tiesOf({ tied = [] }: Model, stages: readonly Layer[], placement: readonly number[]): readonly Tie[] {
  return tied.filter((pair) => pair.every(isTrained)).map((parameters) => {
    const found = parameters.map((parameter) => stages.findIndex((layer) => layer.parameters.includes(parameter)));
    return { parameters, stages: found, ranks: found.map((stage) => placement[stage]) };
  });
}

/**
 * How the steps of a pipeline with these ties end: gradients of the stages in `sums` are added up over replicas, then twins, and all
 * ranks update their parameters, or none.
 */
export function endOf(ties: readonly Tie[], sums: readonly number[]): StepEnd {
  return {
    together: true,
    ...(sums.length > 0 ? { sums } : {}),
    reduceFrom(rank) {
      const twins = ties.filter(({ ranks }) => ranks.includes(rank)).flatMap(({ ranks }) => ranks);
      return [...new Set(twins)].filter((twin) => twin !== rank).sort((a, b) => a - b);
    },
  };
}
