/** Replicas of a pipeline on hosts: where each rank of each is, and what messages and sums of gradients take then. */
import { UserError } from "../../errors.ts";
import { anything, expectFields, flag, oneOf, optional, positive, type Rule, type Rules } from "../../rules.ts";
import { checkAmount } from "./amounts.ts";
import { type Costs, type Link, sumOf, tailOf, withLinks } from "./costs.ts";

/** A way to sum gradients over replicas; {@link withReplicas} says what each takes. */
export type SumWay = "direct" | "ring" | "tree" | "hierarchical";
/** All of them. */
export const sumWays: readonly SumWay[] = ["direct", "ring", "tree", "hierarchical"];

/** What neighbours on a host are: ranks of one replica, so that sums cross hosts, or replicas of one rank, so that messages do. */
export type Neighbours = "ranks" | "replicas";
/** Both of them. */
export const neighbours: readonly Neighbours[] = ["ranks", "replicas"];

/**
 * Links between devices, each device's own: messages from one rank to another follow each other, and nothing else slows a transfer.
 * In the unit of time of the costs.
 */
export interface Network {
  /** Between devices of one host. */
  readonly inside: Link;
  /** Between devices of different hosts; the same by default. */
  readonly between?: Link;
}

/** Replicas, and what connects them. */
export interface ReplicaOptions {
  /** How many there are, R. */
  readonly replicas: number;
  /** Hosts that the devices are on, as many on each; 1 by default. */
  readonly hosts?: number;
  /** Which devices are on a host together; `ranks` by default. */
  readonly neighbours?: Neighbours;
  /** What connects the devices. */
  readonly network: Network;
  /** Bytes of the gradients of each stage, or of every stage. */
  readonly gradients: number | readonly number[];
  /** Bytes of an activation or a gradient between two ranks; where it is absent messages take what the costs say. */
  readonly message?: number;
  /** `direct` by default, which is what pipelines of this project run. */
  readonly way?: SumWay;
  /** Whether each replica updates a part of the parameters alone and sends them to the others (ZeRO, stage 1); not by default. */
  readonly shardOptimizer?: boolean;
}

const isLink = (value: unknown) =>
  typeof value === "object" && value !== null && "latency" in value && "bandwidth" in value;
const networkRule: Rule = {
  right: "an object with inside, and between where that differs, each with latency and bandwidth",
  accepts: (value) => {
    const { inside, between } = (value ?? {}) as Record<string, unknown>;
    return isLink(inside) && (between === undefined || isLink(between));
  },
};
const bytesRule: Rule = {
  right: "bytes, 0 or more, of every stage or a list by stage",
  accepts: (value) => {
    const isAmount = (each: unknown) => typeof each === "number" && each >= 0 && each < Infinity;
    return isAmount(value) || (Array.isArray(value) && value.length > 0 && value.every(isAmount));
  },
};

const rules: Rules<ReplicaOptions> = {
  replicas: positive,
  hosts: optional(positive),
  neighbours: optional(oneOf(neighbours)),
  network: networkRule,
  gradients: bytesRule,
  message: anything, // below
  way: optional(oneOf(sumWays)),
  shardOptimizer: optional(flag),
};

/**
 * The host of a rank of a replica.
 *
 * @param ranks Ranks of a replica.
 */
export function hostOf(
  { replicas, hosts = 1, neighbours = "ranks" }: Pick<ReplicaOptions, "replicas" | "hosts" | "neighbours">,
  ranks: number,
  replica: number,
  rank: number,
): number {
  const place = neighbours === "ranks" ? replica * ranks + rank : rank * replicas + replica;
  return Math.floor(place * hosts / (ranks * replicas));
}

/**
 * Costs of a pipeline of which there are several replicas, each with its share of the batch: the gradients of every stage are summed
 * over them as soon as its last W or B has run (see `Costs.sum`), and messages take what the link of the slowest replica does.
 *
 * R replicas sum B bytes in
 * - `direct`: twice a latency and (R - 1)/R B: each sends a piece to each, adds up its own, and sends that to each. Bytes inside a
 *   host and between hosts travel side by side.
 * - `ring`: 2 (R - 1) times a latency and B/R on the slowest link of the ring.
 * - `tree`: twice for each doubling of the replicas a latency and all B, to one and back.
 * - `hierarchical`: rings inside the hosts, to pieces, then rings between hosts over these, and rings inside them again.
 *
 * With `shardOptimizer` the first half of that is the sum; then a rank updates its part, in 1/R of the tail's time, and sends the
 * parameters in the second half, which is in the tail, since no action is left to hide it.
 *
 * ```ts
 * import { generate, simulate, twoStage } from "twobp";
 * import { unitCosts, withReplicas } from "twobp/schedules";
 *
 * const base = generate("1f1b-1", { devices: 4 });
 * const network = { inside: { latency: 0, bandwidth: 1 } }; // a unit of size in a unit of time
 * const costs = withReplicas(unitCosts(), base.placement, { replicas: 2, network, gradients: 2 });
 * console.log(simulate(base, costs).makespan, simulate(twoStage(base, { costs }), costs).makespan); // 23 17
 * ```
 *
 * @param costs Of a replica.
 * @param placement By stage its rank.
 * @throws {UserError} For options that are none; devices that do not fill the hosts; gradients of other stages than there are; a tree
 * with a sharded optimizer; and hosts with different numbers of replicas of a rank, for `hierarchical`.
 */
export function withReplicas(costs: Costs, placement: readonly number[], options: ReplicaOptions): Costs {
  expectFields("withReplicas", options, rules);
  const { replicas, hosts = 1, network, gradients, message, way = "direct", shardOptimizer = false } = options;
  const ranks = Math.max(...placement) + 1, devices = ranks * replicas;
  if (devices % hosts !== 0) {
    throw new UserError(
      `${devices} devices (${ranks} ranks in ${replicas} replicas) do not fill ${hosts} hosts evenly; take a number of ` +
        `hosts that divides ${devices}`,
    );
  }
  if (typeof gradients !== "number" && gradients.length !== placement.length) {
    throw new UserError(
      `There are gradients of ${gradients.length} stages, and ${placement.length} stages; give the same`,
    );
  }
  if (way === "tree" && shardOptimizer) {
    throw new UserError(
      "A tree gives every replica all of a sum; with a sharded optimizer take direct, ring or hierarchical",
    );
  }
  const { inside, between = inside } = network;
  checkLink("inside a host", inside);
  checkLink("between hosts", between);
  if (message !== undefined) checkAmount("The size of a message", message);
  const links = message === undefined ? costs : withLinks(costs, linkOf(options, ranks), { F: message, I: message });
  if (replicas === 1) return links;
  const bytesOf = (stage: number) => typeof gradients === "number" ? gradients : gradients[stage];
  const groups = Array.from({ length: ranks }, (_, rank) => groupsOf(options, ranks, rank));
  if (way === "hierarchical") groups.forEach(checkEven);
  const half = (stage: number, rank: number) => halfOf[way](bytesOf(stage), groups[rank], inside, between);
  return {
    ...links,
    sum: (stage, rank) => sumOf(costs, stage, rank) + (shardOptimizer ? 1 : 2) * half(stage, rank),
    ...shardOptimizer && {
      tail: (rank: number) =>
        placement.reduce(
          (time, own, stage) => own === rank ? time + half(stage, rank) : time,
          tailOf(costs, rank) / replicas,
        ),
    },
  };
}

function checkLink(where: string, { latency, bandwidth }: Link): void {
  checkAmount(`The latency ${where}`, latency);
  if (typeof bandwidth === "number" && bandwidth > 0) return;
  throw new UserError(`The bandwidth ${where} must be a number above 0, or Infinity where size does not matter`);
}

/** The link from rank to rank: between hosts where it is for any of the replicas. */
function linkOf(options: ReplicaOptions, ranks: number): (from: number, to: number) => Link {
  const { replicas, network: { inside, between = inside } } = options;
  const known = new Map<number, Link>();
  const slower = (bytes: number) =>
    between.latency + bytes / between.bandwidth > inside.latency + bytes / inside.bandwidth ? between : inside;
  const bytes = options.message ?? 0;
  return (from, to) => {
    const key = from * ranks + to;
    let link = known.get(key);
    if (link) return link;
    let same = 0;
    for (let r = 0; r < replicas; r++) {
      if (hostOf(options, ranks, r, from) === hostOf(options, ranks, r, to)) same++;
    }
    link = same === replicas ? inside : same === 0 ? between : slower(bytes);
    known.set(key, link);
    return link;
  };
}

/** How many replicas of a rank are on each of the hosts that have any, in the order of the replicas. */
function groupsOf(options: ReplicaOptions, ranks: number, rank: number): number[] {
  const counts = new Map<number, number>();
  for (let r = 0; r < options.replicas; r++) {
    const host = hostOf(options, ranks, r, rank);
    counts.set(host, (counts.get(host) ?? 0) + 1);
  }
  return [...counts.values()];
}

function checkEven(groups: readonly number[], rank: number): void {
  if (groups.every((count) => count === groups[0])) return;
  throw new UserError(
    `A hierarchical sum needs as many replicas on each host, and rank ${rank} has ${
      groups.join(", ")
    }; take direct or ring`,
  );
}

const timeOn = ({ latency, bandwidth }: Link, bytes: number) => latency + bytes / bandwidth;

/** Half of a sum by each way: from the parts of all to pieces of the sum, or from these to the whole on all. */
const halfOf: Record<SumWay, (bytes: number, groups: readonly number[], inside: Link, between: Link) => number> = {
  direct(bytes, groups, inside, between) {
    const replicas = total(groups), piece = bytes / replicas;
    return Math.max(
      ...groups.map((own) =>
        Math.max(
          own > 1 ? timeOn(inside, (own - 1) * piece) : 0,
          own < replicas ? timeOn(between, (replicas - own) * piece) : 0,
        )
      ),
    );
  },
  ring(bytes, groups, inside, between) {
    const replicas = total(groups), piece = bytes / replicas;
    const step = Math.max(
      groups.some((own) => own > 1) ? timeOn(inside, piece) : 0,
      groups.length > 1 ? timeOn(between, piece) : 0,
    );
    return (replicas - 1) * step;
  },
  tree(bytes, groups, inside, between) {
    const hosts = groups.flatMap((own, host) => Array.from({ length: own }, () => host));
    let time = 0;
    for (let reach = 1; reach < hosts.length; reach *= 2) {
      let step = 0;
      for (let at = 0; at + reach < hosts.length; at += 2 * reach) {
        step = Math.max(step, timeOn(hosts[at] === hosts[at + reach] ? inside : between, bytes));
      }
      time += step;
    }
    return time;
  },
  hierarchical(bytes, groups, inside, between) {
    const [own] = groups, piece = bytes / own;
    return (own - 1) * timeOn(inside, piece) + (groups.length - 1) * timeOn(between, piece / groups.length);
  },
};

const total = (list: readonly number[]) => list.reduce((sum, each) => sum + each, 0);
