/** Ranks that are in other processes: what they tell of a step, of values, and of the call that they make. */
import { reasonOf, UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { dryDevices } from "../gpu/dry.ts";
import { type Batch, mapArrays } from "../train/data.ts";
import type { Context } from "./context.ts";
import type { Rank } from "./run.ts";
import { inProcess } from "./transports/in_process.ts";
import { nameOf, placeOf, type World } from "./world.ts";

type Some = Pick<Context, "ranks" | "world">;

/** What all peers have, by peer, of which each that is here has one of `own`; nothing is told where all are here. */
export async function ofAllPeers<T>({ ranks, world }: Some, own: readonly T[]): Promise<readonly T[]> {
  if (ranks.length === world.size) return own;
  const [all] = await Promise.all(ranks.map(({ transport }, at) => transport.agree(own[at])));
  return all;
}

/** Whether it is so in any process: what one of them alone has seen, a signal for example, all must act on. */
export async function anyOf(context: Some, own: boolean): Promise<boolean> {
  return (await ofAllPeers(context, context.ranks.map(() => own))).includes(true);
}

/** What the processes of a pipeline do together besides its calls: one alone where all ranks are in it. */
export interface Company {
  /** Whether this is the process that writes, and prints. */
  readonly isFirst: boolean;
  /** Whether it is so in any process. */
  anyOf(own: boolean): Promise<boolean>;
  /** Does in the first process what need be done once; where it fails, it throws the same in all. */
  once(run: () => Promise<void>): Promise<void>;
}

const worlds = new WeakMap<object, World>();

/** Enters whose pipeline it is. */
export function enterCompany(pipeline: object, world: World): void {
  worlds.set(pipeline, world);
}

/** The company of a pipeline. */
export function companyOf(pipeline: object): Company {
  const { exchange, lead, peers: [first] } = worlds.get(pipeline) ?? { peers: [0] };
  if (!exchange || lead) return { isFirst: true, anyOf: (own) => Promise.resolve(own), once: (run) => run() };
  const isFirst = first === 0;
  return {
    isFirst,
    anyOf: async (own) => (await exchange(own)).includes(true),
    async once(run) {
      let failure: unknown;
      if (isFirst) await run().catch((error) => failure = error);
      const [told] = await exchange(
        failure === undefined ? undefined : { reason: reasonOf(failure), isUsers: failure instanceof UserError },
      );
      if (failure !== undefined) throw failure;
      if (!told) return;
      const { reason, isUsers } = told as { reason: string; isUsers: boolean };
      throw isUsers ? new UserError(reason) : new Error(reason);
    },
  };
}

/** A peer, here or elsewhere, in messages. */
export function nameOfPeer({ size, world }: Pick<Context, "size" | "world">, peer: number): string {
  return nameOf({ ...placeOf(peer, size), replicas: Array.from({ length: world.size / size }, (_, at) => at) });
}

/**
 * Makes sure that all processes make the same call: ranks that ran different schedules would wait for one another, or compute
 * something that nobody asked for.
 *
 * @param call Says in words all that must be the same; it is not asked where all ranks are here.
 * @throws {UserError} In all processes.
 */
export async function expectAlike(context: Context, call: () => string): Promise<void> {
  if (context.ranks.length === context.world.size) return;
  const own = call(), calls = await ofAllPeers(context, context.ranks.map(() => own));
  const other = calls.findIndex((each) => each !== calls[0]);
  if (other < 0) return;
  throw new UserError(
    `All processes must make the same calls: that of rank 0 asks for ${calls[0]}, that of rank ${other} for ${
      calls[other]
    }`,
  );
}

/** Numbers of an array that its fingerprint is made of, at most: some of each part, so that large batches cost little. */
const looked = 4096;

/** A short text that two batches have in common only where they are the same, as far as it is looked at. */
export function fingerprint(batch: Batch): string {
  let hash = 0x811c9dc5;
  const add = (word: number) => hash = Math.imul(hash ^ word, 0x01000193) >>> 0;
  mapArrays(batch, (array) => {
    const words = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    const stride = Math.max(1, Math.floor(words.length / looked) | 1); // odd, so that all bytes of numbers are looked at
    add(words.length);
    for (let at = 0; at < words.length; at += stride) add(words[at]);
    return array;
  });
  return `${batch.samples} samples (${hash.toString(16).padStart(8, "0")})`;
}

/** So many bytes of values are told at once: what is told is in memory several times. */
const bundleBytes = 64 * 2 ** 20;

/**
 * Values of all processes by name, in the order of `names`, and behind them the others. Those that several have are added up where
 * `isSum`, and else the same.
 */
export async function ofAllProcesses(
  { ranks, world }: Some,
  own: ReadonlyMap<string, Float32Array>,
  names: readonly string[],
  isSum: boolean,
): Promise<Map<string, Float32Array>> {
  if (ranks.length === world.size) return new Map(own);
  const bundles: Map<string, Float32Array>[] = [];
  let room = 0;
  for (const [name, values] of own) {
    if (bundles.length === 0 || room < values.byteLength) {
      bundles.push(new Map());
      room = bundleBytes;
    }
    bundles[bundles.length - 1].set(name, values);
    room -= values.byteLength;
  }
  // The first rank of a process speaks for all.
  const told = <T>(value: T) => ofAllPeers({ ranks, world }, ranks.map((_, at) => at === 0 ? value : undefined));
  const rounds = Math.max(...(await told(bundles.length)).map((count) => count ?? 0));
  const all = new Map<string, Float32Array>();
  for (let round = 0; round < rounds; round++) {
    for (const bundle of await told(bundles[round])) {
      for (const [name, values] of bundle ?? []) {
        const sum = all.get(name);
        if (!sum) all.set(name, values.slice()); // records may share memory with others
        else if (isSum) values.forEach((value, i) => sum[i] += value);
      }
    }
  }
  const first = names.flatMap((name): [string, Float32Array][] => {
    const values = all.get(name);
    return values ? [[name, values]] : [];
  });
  return new Map([...first, ...all]);
}

/**
 * Ranks on dry devices in place of those that are not here: what can be said of their parameters and optimizers without asking
 * them, made when somebody wants to know.
 */
export function standIns(
  world: World,
  place: (devices: readonly Device[], world: World) => readonly Rank[],
): () => readonly Rank[] {
  const peers = Array.from({ length: world.size }, (_, peer) => peer).filter((peer) => !world.peers.includes(peer));
  let made: readonly Rank[] | undefined;
  return () =>
    made ??= peers.length === 0 ? [] : place(dryDevices(peers.length), { ...world, peers, connect: inProcess });
}
