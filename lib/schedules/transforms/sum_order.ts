/** In which order a rank's stages should finish their weight gradients, so that sums over replicas begin early. */
import { type Costs, durationOf, sumOf } from "../price/costs.ts";
import { timesOf } from "../price/simulate.ts";
import type { Program } from "../program.ts";

/** By stage which goes first of those of its rank, the least; of equal ones the one that has waited longest. */
export type StageOrder = Float64Array;

/** Whether any gradients are summed over replicas. */
export function isSummed({ sum }: Program): boolean {
  return sum.some((node) => node >= 0);
}

/**
 * Orders that are worth trying, beside that of waiting: none where nothing is summed, or every rank has one stage.
 *
 * - As the last gradients of the stages come: what can be finished first is.
 * - The stages with the longest sums first, and the other way round.
 * - Johnson's rule for two machines one after the other, the rank's W and its sums (S. M. Johnson, 1954): first the stages whose sums
 *   take longer than their W, the shortest W first, then the others, the longest sum first. That is the best order where all W wait.
 *
 * @param program Of a schedule of F and B.
 */
export function stageOrders(program: Program, costs: Costs): StageOrder[] {
  const { schedule: { placement }, devices, stages, microbatches, backward, sum } = program;
  if (stages === devices || !isSummed(program)) return [];
  const all = Array.from({ length: microbatches }, (_, each) => each);
  const last = Float64Array.from(
    placement,
    (_, stage) => Math.max(...all.map((m) => backward[stage * microbatches + m])),
  );
  const summed = Float64Array.from(placement, (rank, stage) => sum[stage] < 0 ? 0 : sumOf(costs, stage, rank));
  const weights = Float64Array.from(
    placement,
    (rank, stage) => microbatches * durationOf(costs, { kind: "W", stage, microbatches: [0] }, rank, 0),
  );
  // Those with short W before all others, which the longest of sums keeps apart.
  const longest = Math.max(...summed, ...weights);
  const johnson = weights.map((weight, stage) => weight < summed[stage] ? weight - 2 * longest : -summed[stage]);
  return differing([last, summed.map((time) => -time), summed, johnson], placement);
}

/** Of orders that say the same of the stages of each rank the first, and none that says what waiting says: that all are alike. */
function differing(orders: readonly StageOrder[], placement: readonly number[]): StageOrder[] {
  const together = placement.flatMap((rank, a) =>
    placement.slice(0, a).flatMap((other, b) => other === rank ? [[a, b]] : [])
  );
  const seen = new Set([together.map(() => 0).join()]);
  return orders.filter((order) => {
    const said = together.map(([a, b]) => Math.sign(order[a] - order[b])).join();
    return seen.size < seen.add(said).size;
  });
}

/**
 * The best of what is made in these orders, in that of waiting, and in the one in which each rank has the order that ends it first.
 *
 * @param orders See {@link stageOrders}.
 * @param make What an order gives; undefined where that is nothing.
 */
export function bestOrdered<Made extends { readonly program: Program }>(
  orders: readonly StageOrder[],
  costs: Costs,
  make: (order?: StageOrder) => Made | undefined,
): (Made & { makespan: number; order?: StageOrder }) | undefined {
  type Tried = Made & { makespan: number; order?: StageOrder; ends: Float64Array };
  let best: Tried | undefined;
  const tried: Tried[] = [];
  const attempt = (order?: StageOrder) => {
    const made = make(order);
    if (!made) return;
    const { makespan, ends } = timesOf(made.program, costs);
    const one = { ...made, makespan, order, ends };
    tried.push(one);
    if (!best || makespan < best.makespan * (1 - 1e-9)) best = one;
  };
  attempt();
  for (const order of orders) attempt(order);
  if (orders.length > 0 && tried.length > 1) {
    const [{ program: { devices, schedule: { placement } } }] = tried;
    // When a rank has all its sums: before its update, for which it may wait for others.
    const endOf = ({ ends, program }: Tried, rank: number) => {
      const own = program.sum.filter((node, stage) => node >= 0 && placement[stage] === rank);
      return own.reduce((latest, node) => Math.max(latest, ends[node]), 0);
    };
    const chosen = Array.from(
      { length: devices },
      (_, rank) => tried.reduce((a, b) => endOf(b, rank) < endOf(a, rank) * (1 - 1e-9) ? b : a),
    );
    attempt(Float64Array.from(placement, (rank, stage) => chosen[rank].order?.[stage] ?? 0));
  }
  return best;
}
