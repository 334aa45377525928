/** Plans with replicas: how many, where they are, what their sums and messages take. */
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { isTrained } from "../layers/parameter.ts";
import { clusterNetwork } from "../schedules/price/cluster.ts";
import type { StageMemory } from "../schedules/price/memory.ts";
import { type Neighbours, neighbours, type ReplicaOptions } from "../schedules/price/replicas.ts";
import { sizeOf } from "../tensor.ts";

import { expectValue, real } from "../rules.ts";
import type { Level } from "./fit.ts";
import type { PlanOptions, TrainingPlan } from "./options.ts";

/**
 * Plans for the number of replicas that the options say, or for each that divides devices and micro-batches, of which the shortest
 * step wins. Each is asked for with what one replica has.
 *
 * @throws {UserError} Where devices or micro-batches cannot be cut evenly, nothing says what sums take, and no number fits.
 */
export async function planReplicated(
  options: PlanOptions,
  planOne: (options: PlanOptions, replicas: number) => Promise<TrainingPlan>,
): Promise<TrainingPlan> {
  const { devices, microbatches, replicas = 1, network, cluster, shardOptimizer } = options;
  if (network) expectValue("plan: network.operations", network.operations, real({ least: "above 0" }));
  if (network && cluster) {
    throw new UserError(
      "plan: `network` and `cluster` both say what links take; write links and bytes into the cluster",
    );
  }
  if (shardOptimizer && replicas === 1) {
    throw new UserError("plan: `shardOptimizer` is over replicas, and there is one: set `replicas`");
  }
  if ((replicas !== 1 || (options.hosts ?? 1) > 1) && !network && !(cluster && clusterNetwork(cluster))) {
    const what = replicas === 1 ? "messages between hosts" : "sums over replicas";
    throw new UserError(`plan: nothing says what ${what} take; give \`network\`, or links and bytes in the cluster`);
  }
  for (const [name, count] of Object.entries({ devices, microbatches })) {
    if (replicas === "auto" || count % replicas === 0) continue;
    throw new UserError(
      `plan: ${replicas} replicas cannot have equal shares of ${count} ${name}; take a number that divides it`,
    );
  }
  const share = (count: number) => ({
    ...options,
    devices: devices / count,
    microbatches: microbatches / count,
  });
  if (replicas !== "auto") return await planOne(share(replicas), replicas);
  let best: TrainingPlan | undefined, refused: unknown;
  for (let count = 1; count <= Math.min(devices, microbatches); count++) {
    if (devices % count !== 0 || microbatches % count !== 0) continue;
    if (cluster && devices / count !== cluster.ranks) continue;
    try {
      const one = await planOne({ ...share(count), ...count === 1 && { shardOptimizer: false } }, count);
      if (!best || one.makespan < best.makespan * (1 - 1e-9)) best = one;
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      refused ??= error;
    }
  }
  if (best) return best;
  throw refused ??
    new UserError(
      `plan: no number of replicas makes pipelines of the cluster's ${cluster?.ranks} ranks of ${devices} devices`,
    );
}

/** The ways to place replicas on hosts that are to be tried; `undefined` where nothing is said of links. */
export function sidesOf({ hosts = 1, network, cluster }: PlanOptions, replicas: number): (Neighbours | undefined)[] {
  if (!network && !(cluster && clusterNetwork(cluster))) return [undefined];
  return replicas === 1 || hosts === 1 ? ["ranks"] : [...neighbours];
}

/** What `withReplicas()` takes, in the unit of the plan: operations of a device, or the cluster's milliseconds. */
export function replicaOptions(
  { hosts = 1, network, cluster, shardOptimizer = false }: PlanOptions,
  replicas: number,
  side: Neighbours,
  { parts, levels }: { readonly parts: readonly (readonly Layer[])[]; readonly levels: readonly (readonly Level[])[] },
): ReplicaOptions {
  const places = { replicas, hosts, neighbours: side, shardOptimizer };
  const known = cluster && clusterNetwork(cluster);
  if (known) return { ...places, ...known };
  const { inside, between = inside, operations } = network!;
  const counted = ({ latency, bandwidth }: typeof inside) => ({
    latency: latency * operations,
    bandwidth: bandwidth / operations,
  });
  const trained = (layers: readonly Layer[]) =>
    layers.flatMap(({ parameters }) => parameters).filter(isTrained).reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  return {
    ...places,
    network: { inside: counted(inside), between: counted(between) },
    gradients: parts.map((layers) => 4 * trained(layers)), // f32
    message: Math.max(0, ...levels.slice(1).map(([{ memory }]) => memory.input?.F ?? 0)),
  };
}

/** Replicas that are run on shapes, at most; what the sums of more take follows from theirs. */
export const mostOnShapes = 3;

/** What a tensor is at most longer in memory than in bytes. */
const padding = 256;

/**
 * Levels with what sums over replicas take, and each replica's share of a sharded optimizer. A sum of R replicas takes room for all of
 * the gradients, in parts that arrive and their sum, and for messages of (R - 1)/R of them, twice; between processes messages take
 * memory where they arrive as well.
 *
 * @param shared The stages where there are the replicas, or {@link mostOnShapes}, at the first of the levels: neither depends on
 * what is recomputed.
 */
export function withReplicaSums(
  levels: readonly (readonly Level[])[],
  shared: readonly StageMemory[],
  placement: readonly number[],
  replicas: number,
  { shardOptimizer = false, apart = false }: Pick<PlanOptions, "shardOptimizer" | "apart">,
): Level[][] {
  const shown = Math.min(replicas, mostOnShapes);
  const roomOf = (count: number) => 1 + (apart ? 4 : 2) * (count - 1) / count;
  const padded = replicas > shown ? 3 * replicas * padding : 0;
  const sums = shared.map(({ sum = 0 }) => sum > 0 ? Math.ceil(sum * roomOf(replicas) / roomOf(shown)) + padded : 0);
  const moreOf = (rank: number) =>
    placement.reduce((all, own, stage) => own === rank ? all + sums[stage] - (shared[stage].sum ?? 0) : all, 0);
  return levels.map((ways, stage) => {
    const { optimizer, update = 0 } = shared[stage], { update: alone = 0 } = ways[0].memory;
    const isFirst = placement.indexOf(placement[stage]) === stage; // what the end of a step needs is said of it
    const ending = isFirst ? update - alone + moreOf(placement[stage]) : 0;
    const moments = shardOptimizer && optimizer !== undefined && replicas > shown
      ? Math.ceil(optimizer * shown / replicas) + padded
      : optimizer;
    return ways.map((level) => {
      const { memory } = level;
      return {
        ...level,
        memory: { ...memory, optimizer: moments, sum: sums[stage], update: (memory.update ?? 0) + ending },
      };
    });
  });
}
