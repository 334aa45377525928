/**
 * The search's own, compact view of a pipeline: what its stages take, hold and wait for, on whichever ranks they are placed.
 * Micro-batches cost the same, so only the order of a rank's stages and kinds matters: by exchange, the k-th F and the k-th I or B
 * of a stage may always be that of micro-batch k, and a W that of the first whose I waits for it. A B counts as an I and a W that
 * end together: how many of each have run says all that is left to do, whichever way they ran.
 *
 * Who waits for whom is read off a lowered schedule of one micro-batch: it is the same for each.
 *
 * @module
 */

import { actionMaker, type Schedule } from "../schedule.ts";
import { F, I, W } from "../program.ts";

/** The kinds of a search, by their index in `nodeKinds`. */
export const kindsOfSearch = ["F", "I", "W", "B"] as const;

/** For each rank the order of what it runs, as {@link codeOf} numbers it. */
export type Order = Int32Array[];

/** Of an F, I, W and B. */
export type Each = [number, number, number, number];

/** How the step of a rank ends. */
export interface Tail {
  /** Ranks whose last actions, sums over replicas, and then a message, the sum of the rank's gradients waits for. */
  readonly after: readonly { readonly rank: number; readonly delay: number }[];
  /** Ranks whose sums the update waits for. */
  readonly together: readonly number[];
  /** Time of the update. */
  readonly time: number;
}

/** By stage, where nothing else is said. */
export interface Amounts {
  /** Whether a B can be better than an I and its W at once: it takes less time, or holds less where that counts. */
  readonly joins: readonly boolean[];
  /**
   * What starting an action takes: an input that the same rank made is there before, and one that it makes is there from then on.
   * An F whose backward may be whole takes the least that either way does.
   */
  readonly take: readonly Each[];
  /** What ending an action gives back; a B is an I and a W. */
  readonly give: readonly Each[];
  /** What an F and an I take wherever their inputs come from: of each there is no less than that. */
  readonly own: readonly { readonly activations: number; readonly derivatives: number }[];
  /** What an action adds to what a rank holds while it runs, beyond what stays: workspace, and the message that it sends. */
  readonly workspace: readonly Each[];
  /** The message of an action, which is held besides until the next action of the rank has ended. */
  readonly sent: readonly Each[];
  /** Held from the last W or B of a stage on, for the sum over replicas. */
  readonly summed: readonly number[];
  /** By rank the least that the next backward holds while it runs, beyond what is there before it. */
  readonly room: readonly number[];
  /** What each rank may hold in activations, derivatives, workspace and messages, with a little for rounding. */
  readonly cap: readonly number[];
  /** Whether a rank may hold more than all this adds up to: what depends on more than how many have run is left out. */
  readonly isRough: boolean;
}

/** Costs, memory and limits. What passes from stage to stage is numbered by {@link portOf}. */
export interface Problem extends Amounts {
  /** Ranks, N. */
  readonly devices: number;
  /** Stages, S. */
  readonly stages: number;
  /** Micro-batches, M. */
  readonly microbatches: number;
  /** Rank of each stage. */
  readonly placement: readonly number[];
  /** By rank its stages, those nearest to the input first. */
  readonly on: readonly (readonly number[])[];
  /** Time of F, I, W and B of each stage. */
  readonly time: readonly Each[];
  /** By stage the least time from the start of a backward to its gradient. */
  readonly gradient: readonly number[];
  /** By stage the least time that all of a backward takes. */
  readonly backward: readonly number[];
  /** Ports of a micro-batch in an order in which they can run. */
  readonly sequence: readonly number[];
  /** Of each port the port that it waits for, on another stage; -1 for none. */
  readonly source: Int32Array;
  /** How long what it waits for is under way. */
  readonly delay: Float64Array;
  /** The port that waits for it; -1 for none. */
  readonly sink: Int32Array;
  /** What each rank needs after its last action. */
  readonly tails: readonly Tail[];
  /** By stage the time of the sum of its gradients over replicas, after its last W or B. */
  readonly sums: readonly number[];
  /**
   * Whether an order whose ranks are all `feasible()` keeps the cap with the messages on their way, which the order of other ranks
   * decides about too, and with all else that {@link Amounts} leave out: as `peakMemory()` counts.
   */
  keepsCap(order: Order): boolean;
  /** By rank what it runs of one micro-batch, in an order that can be repeated, and that holds least. */
  readonly inTurn: readonly (readonly number[])[];
  /** Times closer than this are equal but for rounding. */
  readonly slack: number;
}

/** What a stage runs, as a number. */
export const codeOf = (stage: number, kind: number) => 4 * stage + kind;
/** What a stage makes for another, as a number: an F an activation, an I or B a gradient. */
export const portOf = (stage: number, kind: number) => 2 * stage + (kind === F ? 0 : 1);

/** The schedule of an order. */
export function scheduleOf({ placement, microbatches, stages }: Problem, order: Order, name: string): Schedule {
  const make = actionMaker(microbatches);
  const ran = Array.from({ length: stages }, () => [0, 0, 0]);
  const pending: number[][] = Array.from({ length: stages }, () => []);
  const actions = order.map((list) =>
    Array.from(list, (code) => {
      const stage = code >> 2, kind = code & 3, own = ran[stage];
      if (kind === W) return make("W", stage, pending[stage][own[W]++]);
      const microbatch = own[kind === F ? F : I]++;
      if (kind === I) pending[stage].push(microbatch);
      return make(kindsOfSearch[kind], stage, microbatch);
    })
  );
  return { name, placement, actions };
}

/**
 * The order of a schedule of the same stages and micro-batches; undefined where there is none, as a W takes several micro-batches, or there is an R.
 */
export function orderOf({ placement, microbatches }: Problem, schedule: Schedule): Order | undefined {
  const { actions } = schedule;
  if (schedule.placement.length !== placement.length || schedule.placement.some((rank, s) => rank !== placement[s])) {
    return undefined;
  }
  if (actions.some((list) => list.some(({ kind }) => kind === "R"))) return undefined; // a search knows none
  const lists = actions.map((list) =>
    Int32Array.from(
      list,
      ({ kind, stage }) => codeOf(stage, kindsOfSearch.indexOf(kind as (typeof kindsOfSearch)[number])),
    )
  );
  const ended = lists.reduce((sum, list) => list.reduce((sum, code) => sum + ((code & 3) >= W ? 1 : 0), sum), 0);
  return ended === placement.length * microbatches ? lists : undefined;
}
