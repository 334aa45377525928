import { formatAction, type Schedule } from "../schedule.ts";

/** What is looked at of a Program that has no order. */
interface Stuck {
  readonly schedule: Schedule;
  readonly first: ArrayLike<number>;
  readonly kind: ArrayLike<number>;
  readonly rank: ArrayLike<number>;
  readonly stage: ArrayLike<number>;
  readonly microbatch: ArrayLike<number>;
  readonly waits: ArrayLike<number>;
  readonly from: ArrayLike<number>;
}

/**
 * Explains why a schedule whose actions are all there cannot run to its end: follows who waits for whom until a rank
 * comes round again.
 *
 * @param next Of each rank the node at which it is stuck.
 */
export function explainDeadlock(program: Stuck, next: ArrayLike<number>): string {
  const { schedule: { actions }, first, rank, stage, microbatch, kind, waits, from } = program;
  const seen: number[] = [];
  /** What a stuck rank waits for: the first such node that another rank has not come to, or this one comes to later. */
  const awaited = (r: number) => {
    for (let edge = waits[next[r]]; edge < waits[next[r] + 1]; edge++) {
      const source = from[edge];
      if (source >= next[rank[source]]) return source;
    }
    throw new Error(`Rank ${r} waits for nothing`);
  };
  let current = actions.findIndex((_, r) => next[r] < first[r + 1]);
  while (!seen.includes(current)) {
    seen.push(current);
    current = rank[awaited(current)];
  }
  const cycle = seen.slice(seen.indexOf(current));
  const here = (r: number) => {
    const index = next[r] - first[r];
    return `its action ${index} (${formatAction(actions[r][index])})`;
  };
  const links = cycle.map((r) => {
    const source = awaited(r), other = rank[source];
    return `rank ${r} waits at ${here(r)} for the ${kind[source] === 0 ? "activation" : "gradient"} of micro-batch ` +
      `${microbatch[source]} from stage ${stage[source]}, which rank ${other} makes only after ${here(other)}`;
  });
  return `Deadlock: ${links.join("; ")}`;
}
