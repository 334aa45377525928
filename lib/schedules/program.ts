/**
 * A schedule, lowered: who waits for whom. This is the only place that knows it. The validator, the simulator, the memory
 * model, the transforms, the search, the CSV transfers, drawings and the runtime read what is worked out here.
 *
 * @module
 */
import { UserError } from "../errors.ts";
import { described } from "../rules.ts";
import { explainDeadlock } from "./check/deadlock.ts";
import { checkOrder, locate, type Where } from "./check/faults.ts";
import { checkPlacement, isEnough, type Sizes, sizesOf } from "./check/sizes.ts";
import { isAction, type Schedule } from "./schedule.ts";

/** What a node of a {@link Program} is: one of the kinds of action, or a part of the step's end. */
export const nodeKinds = ["F", "I", "W", "B", "reduce", "update", "sum", "R"] as const;
/** Index of a forward in {@link nodeKinds}. */
export const F = 0;
/** Index of an input gradient. */
export const I = 1;
/** Index of a weight gradient. */
export const W = 2;
/** Index of a full backward. */
export const B = 3;
/** Index of the sum of a rank's gradients with those that belong to them: of tied parameters on other ranks. */
export const REDUCE = 4;
/** Index of the update of a rank's parameters. */
export const UPDATE = 5;
/** Index of the sum of a stage's gradients over the replicas of the pipeline. */
export const SUM = 6;

/** Index of what a backward recomputes, run ahead of it. */
export const R = 7;

/** What passes along an edge of a {@link Program}: nothing but the news that a node has ended. */
export const NOTHING = 0;
/** The output of a forward. */
export const ACTIVATION = 1;
/** The gradient with respect to a stage's input. */
export const GRADIENT = 2;
/** A gradient of parameters that are tied to those of another rank. */
export const TIED = 3;

/** How a step ends, beyond what its schedule says. */
export interface StepEnd {
  /** Stages whose gradients are summed over the replicas of the pipeline, each as soon as its last W or B has run. */
  readonly sums?: readonly number[];
  /** The other ranks whose gradients a rank adds to its own, of parameters that are tied to its own: each sends them after its last action, summed over replicas where they are. */
  reduceFrom?(rank: number): readonly number[];
  /** Whether no rank updates its parameters before all have added up their gradients: they agree that the step stands. */
  readonly together?: boolean;
}

/**
 * A schedule as a graph. Its nodes are numbered: rank by rank the actions in the order of their lists, then rank by rank the sums
 * over replicas (`sum`) in the order in which they can begin, then for each rank the sum of its gradients with tied ones
 * (`reduce`), then for each rank its `update`. A rank runs its own nodes one after the other, its sums on a lane of their own
 * beside the rest; besides, a node waits for the nodes that its *edges* come from. What an action needs of its own stage (a
 * backward its F, a W its I) stands earlier in the same list: that is checked here, and needs no edge. The replicas are alike, so
 * one Program says what each of them runs.
 */
export interface Program extends Sizes {
  /** What was lowered. */
  readonly schedule: Schedule;
  /**
   * Whether it runs forward passes alone, as `forwardOnly()` leaves them: no micro-batch stays for a backward, and no rank has
   * gradients to add up or parameters to update. Its nodes at the end of the step take no time.
   */
  readonly forwardOnly: boolean;
  /** By rank the number of its first action, and at the end the number of actions: those of rank r are `first[r]` to `first[r + 1] - 1`. */
  readonly first: Int32Array;
  /** Number of nodes: actions, sums over replicas, and two for the end of each rank. */
  readonly nodes: number;
  /** Of each node, its index in {@link nodeKinds}. */
  readonly kind: Uint8Array;
  /** Of each node its rank. */
  readonly rank: Int32Array;
  /** Of each node its stage; -1 at the end of a step, a sum over replicas apart. */
  readonly stage: Int32Array;
  /** Of each node its micro-batch, of a W the first; -1 at the end of a step. */
  readonly microbatch: Int32Array;
  /** Edges that a node waits for: `waits[node]` to `waits[node + 1] - 1`. */
  readonly waits: Int32Array;
  /** Of each edge the node that has to end first. */
  readonly from: Int32Array;
  /** Of each edge the node that waits. */
  readonly to: Int32Array;
  /** Of each edge what passes along it. It is a message where the two nodes are of different ranks, and handed over where they are of one. */
  readonly what: Uint8Array;
  /** Of each node the edge along which its output goes to the one stage that needs it; -1 where none does. */
  readonly output: Int32Array;
  /** By `stage * microbatches + microbatch` its F. */
  readonly forward: Int32Array;
  /** By `stage * microbatches + microbatch` its I or B; -1 where there are forward passes alone. */
  readonly backward: Int32Array;
  /** By `stage * microbatches + microbatch` whether an R runs ahead of its I or B what that recomputes. */
  readonly ahead: Uint8Array;
  /** By stage the sum of its gradients over replicas; -1 where there is none. */
  readonly sum: Int32Array;
  /** All nodes in an order in which they can run. */
  readonly order: Int32Array;
  /**
   * By `stage * microbatches + microbatch` the W or B that ends the micro-batch's stay, and with it those of its group; its F where
   * there are forward passes alone.
   */
  readonly group: Int32Array;
  /** By `stage * microbatches + microbatch` its place in that group. */
  readonly slot: Int32Array;
}

/** All that {@link lower} knows before it looks whether the schedule runs to its end. */
export type Unordered = Omit<Program, "order">;

/**
 * Lowers a schedule. Takes time and memory linear in the number of its actions. Where all of them are F it is one of forward passes
 * alone, whose end waits for nobody; as soon as there is one backward, every micro-batch needs its own.
 *
 * @throws {UserError} For a schedule that does not run to its end, or does not compute every micro-batch on every stage once: the
 * first thing that is wrong, and what would be right.
 */
export function lower(schedule: Schedule, end: StepEnd = {}): Program {
  const { program, deadlock } = lowerAsFar(schedule, end);
  if (deadlock !== undefined) throw new UserError(deadlock);
  return program;
}

/** A schedule, lowered, whether it runs to its end or not. */
export interface Reached {
  /** Its graph; where it hangs `order` has those nodes alone that can run. */
  readonly program: Program;
  /** Of each rank the node that it comes to next, at which it hangs where there is a deadlock. */
  readonly next: Int32Array;
  /** Why it hangs; absent where it runs to its end. */
  readonly deadlock?: string;
}

/**
 * {@link lower} for who wants to see of a schedule that hangs what runs nevertheless.
 *
 * @throws {UserError} For everything else that is wrong with a schedule.
 */
export function lowerAsFar(schedule: Schedule, end: StepEnd = {}): Reached {
  checkPlacement(schedule);
  const listed = listedOf(schedule) ?? explain(schedule);
  const { sizes, forwardOnly } = listed;
  const actions = nodesOf(schedule, listed) ?? explain(schedule);
  const last = forwardOnly ? {} : end;
  const nodes = withEnd(actions, sizes, sumsOf(last, sizes));
  const edges = edgesOf(nodes, sizes, last);
  const known = { schedule, forwardOnly, ...sizes, ...nodes, ...edges };
  const { order, next } = orderOf(known), program = { ...known, order };
  return order.length === nodes.nodes ? { program, next } : { program, next, deadlock: explainDeadlock(known, next) };
}

/** Whether what passes along an edge goes from rank to rank. */
export function isMessage({ from, to, what, rank }: Unordered, edge: number): boolean {
  return what[edge] !== NOTHING && rank[from[edge]] !== rank[to[edge]];
}

/** The edge that brings what an action needs from another stage, or -1. */
export function inputOf({ waits, what }: Unordered, node: number): number {
  for (let edge = waits[node]; edge < waits[node + 1]; edge++) {
    if (what[edge] === ACTIVATION || what[edge] === GRADIENT) return edge;
  }
  return -1;
}

/** The edge along which an action's output goes to another stage, or -1. */
export function outputOf({ output }: Unordered, node: number): number {
  return output[node];
}

/** Index of a kind of action in {@link nodeKinds}; -1 where it is none. */
function kindOf(kind: string): number {
  return kind === "F" ? F : kind === "I" ? I : kind === "W" ? W : kind === "B" ? B : kind === "R" ? R : -1;
}

/** The stage whose output an action of that kind needs, of the same micro-batch: a forward's for a forward, a gradient otherwise; or -1. */
function sourceOf(kind: number, stage: number, stages: number): number {
  if (kind === F) return stage - 1;
  return kind === W || kind === R || stage === stages - 1 ? -1 : stage + 1;
}

type Nodes = Pick<
  Program,
  | "first"
  | "nodes"
  | "kind"
  | "rank"
  | "stage"
  | "microbatch"
  | "forward"
  | "backward"
  | "ahead"
  | "group"
  | "slot"
  | "sum"
>;

/** The nodes that are actions: as many as there are, in arrays with room for the two ends of each rank. */
type ActionNodes = Omit<Nodes, "sum">;

/** What the lists say, in typed arrays. */
interface Listed extends Pick<Nodes, "first" | "nodes" | "kind" | "stage" | "microbatch"> {
  readonly sizes: Sizes;
  readonly forwardOnly: boolean;
}

/**
 * Reads the lists, or gives up where an action is none. All that follows stays with numbers: a million actions are all over the
 * memory, and looking at them once takes as long as all the rest.
 */
function listedOf({ placement, actions }: Schedule): Listed | undefined {
  const devices = actions.length, stages = placement.length;
  const first = new Int32Array(devices + 1);
  for (let r = 0; r < devices; r++) first[r + 1] = first[r] + actions[r].length;
  const nodes = first[devices] + 2 * devices;
  const kind = new Uint8Array(nodes), stage = new Int32Array(nodes), microbatch = new Int32Array(nodes);
  let last = -1, width = 1, split = false, forwardOnly = true;
  for (let r = 0, node = 0; r < devices; r++) {
    const list = actions[r];
    for (let index = 0; index < list.length; index++) {
      const action = list[index];
      if (!isAction(action)) return undefined;
      const { stage: s, microbatches: carried } = action, k = kindOf(action.kind);
      if (k < 0 || !Number.isInteger(s) || placement[s] !== r) return undefined;
      if (carried.length !== 1 && (k !== W || carried.length === 0)) return undefined;
      for (let at = 0; at < carried.length; at++) {
        const each = carried[at];
        if (!Number.isInteger(each) || each < 0) return undefined;
        if (each > last) last = each;
      }
      if (carried.length > width) width = carried.length;
      if (k === I || k === W) split = true;
      if (k !== F) forwardOnly = false;
      kind[node] = k;
      stage[node] = s;
      microbatch[node] = carried[0];
      node++;
    }
  }
  const sizes = { devices, stages, microbatches: last + 1, width, split };
  return last >= 0 && isEnough(first[devices], sizes)
    ? { sizes, forwardOnly, first, nodes, kind, stage, microbatch }
    : undefined;
}

/** The nodes, or undefined where an action is missing, there twice, or before what it needs of its own stage. */
function nodesOf({ actions }: Schedule, { sizes, forwardOnly, ...listed }: Listed): ActionNodes | undefined {
  const { first, nodes, kind, stage, microbatch } = listed, { devices, stages, microbatches } = sizes;
  const rank = new Int32Array(nodes);
  const cells = stages * microbatches;
  const forward = new Int32Array(cells), backward = new Int32Array(cells);
  const group = new Int32Array(cells), slot = new Int32Array(cells), ahead = new Uint8Array(cells);
  const state = new Uint8Array(cells); // of a micro-batch on a stage: 1 after F, 2 after I, 3 after W or B
  if (forwardOnly) backward.fill(-1);
  let finished = 0;
  for (let r = 0; r < devices; r++) {
    for (let node = first[r]; node < first[r + 1]; node++) {
      const k = kind[node], row = stage[node] * microbatches, own = row + microbatch[node];
      rank[node] = r;
      if (k === W) {
        const members = sizes.width > 1 ? actions[r][node - first[r]].microbatches : undefined;
        for (let at = 0; at < (members ? members.length : 1); at++) {
          const each = members ? row + members[at] : own;
          if (state[each] !== 2) return undefined;
          state[each] = 3;
          group[each] = node;
          slot[each] = at;
          finished++;
        }
        continue;
      }
      if (state[own] !== (k === F ? 0 : 1)) return undefined;
      if (k === R) {
        if (ahead[own] === 1) return undefined;
        ahead[own] = 1;
        continue;
      }
      state[own] = k === F ? 1 : k === I ? 2 : 3;
      if (k === F) forward[own] = node;
      else backward[own] = node;
      if (k !== B && !forwardOnly) continue;
      group[own] = node;
      finished++;
    }
  }
  return finished === cells ? { ...listed, rank, forward, backward, ahead, group, slot } : undefined;
}

/** The stages whose gradients are summed over replicas, checked. */
function sumsOf({ sums = [] }: StepEnd, { stages }: Sizes): readonly number[] {
  if (!Array.isArray(sums)) {
    throw new UserError(`Sums over replicas are a list of stages, not ${described(sums)}`);
  }
  for (const [at, stage] of sums.entries()) {
    if (!Number.isInteger(stage) || stage < 0 || stage >= stages) {
      throw new UserError(`Gradients of stage ${described(stage)} are summed; the stages are 0 to ${stages - 1}`);
    }
    if (sums.indexOf(stage) < at) throw new UserError(`Gradients of stage ${stage} are summed twice; once is right`);
  }
  return sums;
}

/** Adds the nodes at the end of a step: sums, rank by rank in the order in which they can begin, and the two ends of each rank. */
function withEnd(actions: ActionNodes, { devices, stages }: Sizes, sums: readonly number[]): Nodes {
  const { first } = actions, count = first[devices], nodes = count + sums.length + 2 * devices;
  const sum = new Int32Array(stages).fill(-1);
  const longer = (array: Int32Array) => {
    if (array.length >= nodes) return array;
    const result = new Int32Array(nodes);
    result.set(array.subarray(0, count));
    return result;
  };
  const kind = new Uint8Array(nodes);
  kind.set(actions.kind.subarray(0, count));
  const rank = longer(actions.rank), stage = longer(actions.stage), microbatch = longer(actions.microbatch);
  let node = count;
  if (sums.length > 0) {
    const last = lastBackwards(actions, count, stages);
    // The lists stand one after the other, so this is by rank too.
    for (const one of sums.toSorted((a, b) => last[a] - last[b])) {
      kind[node] = SUM;
      rank[node] = rank[last[one]];
      stage[node] = one;
      microbatch[node] = -1;
      sum[one] = node++;
    }
  }
  for (let r = 0; r < devices; r++) {
    const reduce = node + r, update = reduce + devices;
    kind[reduce] = REDUCE;
    kind[update] = UPDATE;
    rank[reduce] = rank[update] = r;
    stage[reduce] = stage[update] = -1;
    microbatch[reduce] = microbatch[update] = -1;
  }
  return { ...actions, nodes, kind, rank, stage, microbatch, sum };
}

/** By stage the W or B that ends its list of them. */
function lastBackwards({ kind, stage }: ActionNodes, count: number, stages: number): Int32Array {
  const last = new Int32Array(stages);
  for (let node = 0; node < count; node++) if (kind[node] === W || kind[node] === B) last[stage[node]] = node;
  return last;
}

type Edges = Pick<Program, "waits" | "from" | "to" | "what" | "output">;

function edgesOf(nodes: Nodes, { devices, stages, microbatches }: Sizes, end: StepEnd): Edges {
  const { first, kind, stage, microbatch, forward, backward } = nodes, count = first[devices];
  const senders = sendersOf(end, devices), own = sumsByRank(nodes, count, devices);
  const most = 2 * (stages - 1) * microbatches + 2 * own.flat().length +
    senders.reduce((sum, list) => list.reduce((sum, other) => sum + 1 + own[other].length, sum), 0) +
    (end.together ? devices * (devices - 1) : 0);
  const waits = new Int32Array(nodes.nodes + 1);
  const from = new Int32Array(most), to = new Int32Array(most), what = new Uint8Array(most);
  const output = new Int32Array(nodes.nodes).fill(-1);
  let edges = 0;
  const add = (source: number, node: number, passes: number) => {
    from[edges] = source;
    to[edges] = node;
    what[edges++] = passes;
  };
  for (let node = 0; node < count; node++) {
    const isForward = kind[node] === F, source = sourceOf(kind[node], stage[node], stages);
    if (source >= 0) {
      const made = (isForward ? forward : backward)[source * microbatches + microbatch[node]];
      output[made] = edges;
      add(made, node, isForward ? ACTIVATION : GRADIENT);
    }
    waits[node + 1] = edges;
  }
  const reduces = nodes.nodes - 2 * devices;
  if (reduces > count) {
    const last = lastBackwards(nodes, count, stages);
    for (let node = count; node < reduces; node++) {
      add(last[stage[node]], node, NOTHING);
      waits[node + 1] = edges;
    }
  }
  for (let r = 0; r < devices; r++) {
    const node = reduces + r;
    for (const sum of own[r]) add(sum, node, NOTHING);
    for (const other of senders[r]) {
      if (first[other + 1] > first[other]) add(first[other + 1] - 1, node, TIED);
      for (const sum of own[other]) add(sum, node, TIED);
    }
    waits[node + 1] = edges;
  }
  for (let r = 0; r < devices; r++) {
    const node = reduces + devices + r;
    for (let other = 0; end.together && other < devices; other++) if (other !== r) add(reduces + other, node, NOTHING);
    waits[node + 1] = edges;
  }
  return { waits, from: from.subarray(0, edges), to: to.subarray(0, edges), what: what.subarray(0, edges), output };
}

/** By rank its sums over replicas. */
function sumsByRank({ nodes, rank }: Nodes, count: number, devices: number): number[][] {
  const own: number[][] = Array.from({ length: devices }, () => []);
  for (let node = count; node < nodes - 2 * devices; node++) own[rank[node]].push(node);
  return own;
}

/** By rank whose gradients it adds to its own, checked. */
function sendersOf({ reduceFrom }: StepEnd, devices: number): (readonly number[])[] {
  return Array.from({ length: devices }, (_, rank) => {
    const senders = reduceFrom?.(rank) ?? [];
    if (!Array.isArray(senders)) {
      throw new UserError(`The tail of rank ${rank} waits for a list of ranks, not ${described(senders)}`);
    }
    for (const other of senders) {
      if (Number.isInteger(other) && other >= 0 && other < devices) continue;
      throw new UserError(`The tail of rank ${rank} waits for rank ${other}; the ranks are 0 to ${devices - 1}`);
    }
    return senders;
  });
}

/** The order in which the ranks run, each until it waits for another, as far as they come. */
function orderOf(program: Unordered): Pick<Reached, "next"> & Pick<Program, "order"> {
  const { devices, first, nodes, rank, waits, from, to, output } = program, count = first[devices];
  const order = new Int32Array(nodes);
  /** Of each rank the node that it comes to next: those before it are over. */
  const next = first.slice(0, devices);
  let filled = 0;
  const ready: number[] = [];
  for (let r = devices - 1; r >= 0; r--) ready.push(r);
  while (ready.length > 0) {
    const r = ready.pop()!, end = first[r + 1];
    for (let node = next[r]; node < end; node++) {
      const edge = waits[node]; // an action has one, or none
      if (edge < waits[node + 1] && from[edge] >= next[rank[from[edge]]]) break;
      order[filled++] = node;
      next[r] = node + 1;
      if (output[node] < 0) continue;
      const waiting = to[output[node]], other = rank[waiting];
      if (other !== r && waiting === next[other]) ready.push(other);
    }
  }
  if (filled < count) return { order: order.subarray(0, filled), next };
  for (let node = count; node < nodes; node++) order[filled++] = node; // the end of a step waits for nothing but what is over
  return { order, next };
}

/** Says what is wrong with a schedule that has no nodes. */
function explain(schedule: Schedule): never {
  const sizes = sizesOf(schedule);
  const where = locate(schedule, sizes);
  checkSources(schedule, sizes, where);
  checkOrder(schedule, sizes, where);
  throw new Error(`${schedule.name} has a fault that nothing explains`);
}

function checkSources(schedule: Schedule, { stages, microbatches }: Sizes, { forward, backward }: Where): void {
  for (const [rank, list] of schedule.actions.entries()) {
    for (const { kind, stage, microbatches: [microbatch] } of list) {
      const source = sourceOf(kindOf(kind), stage, stages);
      if (source < 0 || (kind === "F" ? forward : backward)[source * microbatches + microbatch] >= 0) {
        continue;
      }
      throw new UserError(
        `Rank ${rank} waits for the ${kind === "F" ? "activation" : "gradient"} of micro-batch ${microbatch} ` +
          `from stage ${source}, which no action sends`,
      );
    }
  }
}
