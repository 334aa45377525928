/** Plans with the times of a cluster file: which schedules it has times for, and what recomputation adds to them. */
import { UserError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { type Cluster, clusterCosts, type ClusterStage, readCluster } from "../schedules/price/cluster.ts";
import type { Costs, StageCost } from "../schedules/price/costs.ts";
import { weightTime } from "../schedules/price/weight_time.ts";
import type { Kind } from "../schedules/schedule.ts";
import type { Level } from "./fit.ts";
import { type Recipe, recipesFor } from "./recipes.ts";

/** A schedule that a plan does not try, since the cluster file has no times for it. */
export interface LeftOut {
  /** Name of the schedule; several with 2BP are one. */
  readonly name: string;
  /** What the file lacks. */
  readonly reason: string;
}

/**
 * The recipes that a cluster has all times for: those with its number of stages, and of them those whose kinds of action it knows
 * on every stage. A schedule that takes any number of stages a rank is made with the cluster's.
 *
 * @throws {UserError} When the cluster is none, has other ranks, more stages than the model has layers, or too few times for any
 * schedule.
 */
export function clusterRecipes(
  model: Model,
  given: Cluster,
  devices: number,
  microbatches: number,
): { recipes: Recipe[]; leftOut: LeftOut[] } {
  const cluster = readCluster({ ...given, schema: 1 });
  const { ranks, stages: { length: stages } } = cluster, { layers: { length: layers } } = model;
  if (ranks !== devices) {
    throw new UserError(`The cluster has times of ${ranks} ranks, and the plan is for ${devices}; give the same`);
  }
  if (stages > layers) {
    throw new UserError(
      `The cluster has times of ${stages} stages, and ${model.name} has ${layers} layers, which cannot be cut into as many`,
    );
  }
  const fitting = recipesFor(devices, microbatches, layers, stages);
  const others = recipesFor(devices, microbatches, layers).filter(({ name, split }) =>
    !split && !fitting.some((each) => each.name === name)
  );
  if (fitting.length === 0) {
    const known = [...new Set(others.map((each) => each.stages))].sort((a, b) => a - b).join(" or ");
    throw new UserError(
      `The cluster has times of ${stages} stages, and no schedule for ${devices} ranks and ${microbatches} micro-batches ` +
        `has as many${known && `; those that plan knows have ${known}`}`,
    );
  }
  const leftOut = others.map((each): LeftOut => ({ name: each.name, reason: `${each.stages} stages` }));
  const costs = clusterCosts(cluster);
  const recipes = fitting.filter((recipe) => {
    const reason = lackOf(costs, recipe);
    if (reason !== undefined) leftOut.push({ name: `${recipe.name}${recipe.split ? " with 2BP" : ""}`, reason });
    return reason === undefined;
  });
  // The first says what even a schedule without 2BP lacks.
  if (recipes.length === 0) throw new UserError(lackOf(costs, fitting[0])!);
  return { recipes, leftOut };
}

/** What the first action is that has no time, in words. */
function lackOf(costs: Costs, { base, split }: Recipe): string | undefined {
  const kinds: readonly Kind[] = split || sizesOf(base).split ? ["F", "I", "W"] : ["F", "B"];
  try {
    for (const [stage, rank] of base.placement.entries()) {
      for (const kind of kinds) costs.duration({ kind, stage, microbatches: [0] }, rank, 0);
    }
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}

/**
 * The levels of each stage with the cluster's times in place of counted work. What a level computes beyond the first, which
 * recomputes nothing, takes as long an operation as the stage's F and B do. Levels whose W makes sums are left out: the file
 * does not say what that moves from I to W.
 */
export function clusterLevels(levels: readonly (readonly Level[])[], { stages }: Cluster): Level[][] {
  return levels.map((ways, stage) => {
    const [{ cost: counted }] = ways, taken = timesOf(stages[stage]);
    const work = counted.f + wholeOf(counted);
    const each = work > 0 ? (taken.f + taken.b) / work : 0;
    return ways.filter(({ sums }) => sums === "i").map((level) => {
      const { cost } = level;
      return {
        ...level,
        cost: {
          f: taken.f + (cost.f - counted.f) * each,
          i: taken.i + (cost.i - counted.i) * each,
          w: taken.w + (widthOne(cost) - widthOne(counted)) * each,
          b: taken.b + (wholeOf(cost) - wholeOf(counted)) * each,
          r: (cost.r ?? 0) * each,
        },
      };
    });
  });
}

/** Costs of stages at their levels with all else that the cluster says: messages, hosts, tails. */
export function clusterPrice(cluster: Cluster): (stages: readonly StageCost[]) => Costs {
  return (stages) =>
    clusterCosts({
      ...cluster,
      stages: stages.map((cost) => ({ f: cost.f, i: cost.i, b: cost.b, w: widthOne(cost), r: cost.r })),
    });
}

/** A stage's times of one micro-batch; NaN, which nothing takes for a time, where the file has none. */
function timesOf({ f = NaN, i = NaN, w, b }: ClusterStage): { f: number; i: number; w: number; b: number } {
  const one = w === undefined ? NaN : typeof w === "number" ? w : weightTime(w, 1);
  return { f, i, w: one, b: b ?? i + one };
}

function widthOne({ w }: StageCost): number {
  return typeof w === "number" ? w : w(1);
}

function wholeOf(cost: StageCost): number {
  return cost.b ?? cost.i + widthOne(cost);
}
