/** All the ranks that make up a pipeline, of which this process has some. */
import type { Device } from "../gpu/device.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import type { Rank } from "./run.ts";
import type { Transport } from "./transport.ts";
import type { Lead } from "./orders.ts";
import { inProcess } from "./transports/in_process.ts";

/** The way of each peer that is here to all others, for peers that have these devices. */
export type Connect = (devices: readonly Device[]) => readonly Transport[];

/**
 * All peers of a pipeline. A *peer* is a rank of a replica: with N ranks, rank r of replica q is peer q * N + r. These are the
 * numbers that a {@link Transport} knows others by.
 */
export interface World {
  /** How many peers there are: ranks times replicas. */
  readonly size: number;
  /** The peers that are in this process, those of its devices, in order. */
  readonly peers: readonly number[];
  /** What carries their messages, for tables: "in-process", or that of several processes. */
  readonly transport: string;
  /**
   * Makes the transports of a pipeline on these peers.
   *
   * @internal
   */
  readonly connect: Connect;
  /** What makes it, with its version; absent within one process. */
  readonly library?: string;
  /** What each process says, by its number: all call it, each time alike. Absent where all peers are in this process. */
  readonly exchange?: (own: unknown) => Promise<readonly unknown[]>;
  /**
   * Tells the other processes, which are workers, what this one calls; absent where all make the same calls by themselves.
   *
   * @internal
   */
  readonly lead?: Lead;
}

/** Devices of which each belongs to a peer of a world with others in other processes. */
export interface WorldSet extends DeviceSet {
  /** All of them, and which are here. */
  readonly world: World;
}

/** The world of a set of devices: where it says nothing of others, all peers are here. */
export function worldOf(set: DeviceSet, connect: Connect = inProcess): World {
  if ("world" in set) return (set as WorldSet).world;
  const { devices } = set;
  return { size: devices.length, peers: [...devices.keys()], transport: "in-process", connect };
}

/** How many devices there are with those of other processes. */
export function countDevices(set: DeviceSet): number {
  return worldOf(set).size;
}

/** What all devices have, in the order of their peers, of which each that is here has one of `own`. */
export async function ofAllDevices<T>(set: DeviceSet, own: readonly T[]): Promise<readonly T[]> {
  const { exchange } = worldOf(set);
  return exchange ? (await exchange(own) as readonly (readonly T[])[]).flat() : own;
}

/** What reports say of how messages between processes travel; nothing within one process. */
export function transportOf(set: DeviceSet): { readonly transport?: string; readonly library?: string } {
  const { transport, library } = worldOf(set);
  return library === undefined ? {} : { transport, library };
}

/** A rank in messages: "Rank 2", or of several replicas "Rank 2 of replica 1". */
export function nameOf({ number, replica, replicas }: Pick<Rank, "number" | "replica" | "replicas">): string {
  return replicas.length > 1 ? `Rank ${number} of replica ${replica}` : `Rank ${number}`;
}

/** The peer of another rank of the same replica. */
export function peerOf({ peer, number }: Pick<Rank, "peer" | "number">, other: number): number {
  return peer - number + other;
}

/** The pipeline's rank, and its copy, of a peer. */
export function placeOf(peer: number, ranks: number): { readonly number: number; readonly replica: number } {
  return { number: peer % ranks, replica: Math.floor(peer / ranks) };
}
