/** The flags of replicas: how many, on which hosts, what connects them, and how their gradients are summed. */
import type { Command } from "commander";
import { UserError } from "../errors.ts";
import { type Cluster, clusterNetwork } from "../schedules/price/cluster.ts";
import { type Neighbours, neighbours, type ReplicaOptions, type SumWay, sumWays } from "../schedules/price/replicas.ts";
import * as flag from "./flags.ts";
import { integer, oneOf, pairs } from "./options.ts";

const defaultNetwork = {
  latency: 0,
  bandwidth: 1,
  betweenLatency: NaN,
  betweenBandwidth: NaN,
  message: NaN,
  gradients: 1,
};

/** Of the flags those that say how many replicas run, and whether each has a part of the optimizer. */
export interface ReplicaCount {
  replicas?: number;
  shardOptimizer?: boolean;
}

/** What the flags say. */
export interface ReplicaFlags extends ReplicaCount {
  hosts?: number;
  neighbours?: Neighbours;
  network?: typeof defaultNetwork;
  sum?: SumWay;
}

/** Adds the flags to a command. */
export function replicaFlags(command: Command): Command {
  return command
    .addOption(flag.replicas(4096))
    .option("--hosts <h>", "machines that the devices are on, as many on each (default: 1)", integer(1, 4096))
    .option(
      "--neighbours <which>",
      "what neighbours on a host are: ranks of a replica, so that sums cross hosts, or replicas of a rank, so that messages do " +
        "(default: what makes the step shorter)",
      oneOf(neighbours),
    )
    .option(
      "--network <pairs>",
      "links inside a host and between hosts, and sizes: of a stage's gradients, and of a message, which takes comm without. Times " +
        "are in the unit of --costs, bandwidths in sizes in such a time (default: latency=0,bandwidth=1,gradients=1, between as inside)",
      pairs(defaultNetwork),
    )
    .option(
      "--sum <way>",
      `how gradients are summed over replicas: ${sumWays.join(", ")} (default: direct)`,
      oneOf(sumWays),
    )
    .addOption(flag.shardOptimizer());
}

/**
 * Ranks of each pipeline when so many devices are cut into replicas; undefined where nobody says how many devices.
 *
 * @throws {UserError} Where they cannot be cut evenly.
 */
export function ranksOf(devices: number | undefined, { replicas = 1 }: ReplicaCount): number | undefined {
  if (devices === undefined) return undefined;
  if (devices % replicas === 0) return devices / replicas;
  throw new UserError(
    `--devices ${devices} cannot be cut into ${replicas} replicas of as many ranks; take a number of devices that ${replicas} divides`,
  );
}

/** The most devices that a command runs, or looks at one by one. */
const mostDevices = 64;

/**
 * Devices of so many ranks in each replica, also where nobody has said how many there are.
 *
 * @throws {UserError} Where that is more than a command runs.
 */
export function devicesOf(ranks: number, { replicas = 1 }: ReplicaCount): number {
  const devices = ranks * replicas;
  if (replicas === 1 || devices <= mostDevices) return devices;
  throw new UserError(
    `--replicas ${replicas} of ${ranks} ranks each are ${devices} devices; there may be ${mostDevices}: take fewer`,
  );
}

/**
 * Refuses what is about several replicas where there is one: `idle`, and a sharded optimizer.
 *
 * @throws {UserError} Names the flag.
 */
export function expectReplicas(idle: string | undefined, { replicas = 1, shardOptimizer }: ReplicaCount): void {
  const vain = idle ?? (shardOptimizer ? "--shard-optimizer" : undefined);
  if (vain && replicas === 1) throw new UserError(`${vain} is about several replicas; add --replicas`);
}

/**
 * The options that the flags stand for, one for each way to place replicas on hosts that is to be tried; none where there is one
 * pipeline and nothing is said of links.
 *
 * @throws {UserError} For flags that say how without --replicas, links given twice, and a cluster file that has none.
 */
export function replicasGiven(flags: ReplicaFlags, cluster: Cluster | undefined): ReplicaOptions[] {
  const { replicas = 1, hosts = 1, network, sum: way, shardOptimizer } = flags;
  expectReplicas(flags.neighbours ? "--neighbours" : way ? "--sum" : undefined, flags);
  if (network && cluster) {
    throw new UserError(
      "--network and --cluster both say what links take; write links and bytes into the cluster file",
    );
  }
  if (replicas === 1 && hosts === 1 && !network) return [];
  const links = cluster ? clusterLinks(cluster) : linksOf(network ?? defaultNetwork);
  const sides = replicas === 1 || hosts === 1 ? ["ranks" as const] : neighbours;
  return (flags.neighbours ? [flags.neighbours] : sides).map((each) => ({
    replicas,
    hosts,
    neighbours: each,
    ...links,
    ...way && { way },
    ...shardOptimizer && { shardOptimizer },
  }));
}

function linksOf(given: typeof defaultNetwork): Pick<ReplicaOptions, "network" | "gradients" | "message"> {
  const { latency, bandwidth, betweenLatency, betweenBandwidth, message, gradients } = given;
  const or = (value: number, otherwise: number) => Number.isNaN(value) ? otherwise : value;
  const between = { latency: or(betweenLatency, latency), bandwidth: or(betweenBandwidth, bandwidth) };
  return {
    network: { inside: { latency, bandwidth }, between },
    gradients,
    ...!Number.isNaN(message) && { message },
  };
}

function clusterLinks(cluster: Cluster) {
  const links = clusterNetwork(cluster);
  if (links) return links;
  throw new UserError(
    "The cluster file does not say what sums over replicas take, nor messages between hosts: add links and bytes to it",
  );
}
