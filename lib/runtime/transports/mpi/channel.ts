/** What the ranks of a pipeline in this process share of its way to those in others: failures, agreements, and what was sent. */
import { NotFiniteError, RankError } from "../../transport.ts";
import type { Job } from "./job.ts";
import type { Memory } from "./library.ts";
import type { Receipt } from "./progress.ts";

/** Which process has which peers. */
export interface Layout {
  /** The process of each peer. */
  readonly processOf: readonly number[];
  /** The most peers that a process has. */
  readonly most: number;
  /** The place of each peer in its process. */
  readonly placeOf: readonly number[];
}

/** Data between peers. */
export interface Channel {
  /** Sends bytes from a peer that is here; undefined, and nothing is sent, where a rank has failed meanwhile. */
  send(from: number, to: number, id: number, memory: Memory): Promise<void> | undefined;
  /** Receives into `memory`, which belongs to a message of `to`, a peer that is here. */
  receive(from: number, to: number, id: number, memory: Memory, routine: object): Promise<void>;
  /** Tells a peer's record, and gives those of all. */
  agree(peer: number, told: unknown): Promise<readonly unknown[]>;
  fail(error: RankError): void;
  /** Once for each peer that is here, and by all together. */
  recover(): Promise<void>;
  close(): void;
}

/** Tags below are those of records. */
const firstTag = 2;

/** How many channels this process has made: all processes make theirs in the same order. */
let channels = 0;

/** @param own The peers that are here. */
export function createChannel(job: Job, layout: Layout, own: readonly number[]): Channel {
  const { mail, rank, size } = job, { progress } = mail, { processOf, placeOf, most } = layout;
  const number = channels++;
  const processes = Array.from({ length: size }, (_, at) => at);
  let epoch = 0, round = 0;
  let failure: Error | undefined;
  const rejects = new Set<(error: Error) => void>();
  /** Receives under way. */
  const open = new Map<Receipt, readonly [from: number, tag: number]>();
  /** How many messages were sent and received, by process and tag, and how long the last one was that was sent. */
  const sent = new Map<string, { count: number; bytes: number }>(), received = new Map<string, number>();
  const sending = new Set<Promise<void>>();
  const keyOf = (name: string) => `${number}.${epoch} ${name}`;
  /** Of those of peers in these processes: sums are numbered from -1 down, edges from 0 up. */
  const tagOf = (from: number, to: number, id: number) =>
    firstTag + ((id < 0 ? -2 * id - 1 : 2 * id) * most + placeOf[from]) * most + placeOf[to];

  function end(error: Error) {
    if (failure) return;
    failure = error;
    for (const reject of rejects) reject(error);
  }

  /**
   * The promise, unless a rank fails first. Records may come together with the news of a failure in the step that they began: what
   * others have agreed on counts here too.
   */
  async function unlessFailed<T>(promise: Promise<T>): Promise<T> {
    let reject!: (error: Error) => void;
    const failed = new Promise<never>((_, no) => rejects.add(reject = no));
    if (failure) reject(failure);
    try {
      return await Promise.race([promise, failed]);
    } catch (error) {
      const later = new Promise<never>((_, no) => void setImmediate(() => no(error)));
      return await Promise.race([promise, later]);
    } finally {
      rejects.delete(reject);
    }
  }

  const onFailure = (news: unknown) => {
    const { epoch: of, message, notFinite } = news as { epoch: number; message: string; notFinite: boolean };
    if (of === epoch) end(notFinite ? new NotFiniteError(message) : new RankError(message));
  };
  mail.onNews(`${number} failed`, (_, news) => onFailure(news));
  const unlisten = job.onLoss((process, why) => {
    const peers = [...processOf.keys()].filter((peer) => processOf[peer] === process);
    end(new RankError(`Rank${peers.length === 1 ? "" : "s"} ${peers.join(", ")} ${why}`));
  });

  let telling: { told: Map<number, unknown>; all: Promise<readonly unknown[]>; begin: () => void } | undefined;
  function newRound() {
    let begin!: () => void;
    const begun = new Promise<void>((resolve) => begin = resolve);
    const told = new Map<number, unknown>(), key = keyOf(`record ${round++}`);
    const exchange = async () => {
      await begun;
      for (const to of processes) if (to !== rank) mail.tell(to, key, [...told]);
      const all: unknown[] = [];
      await Promise.all(processes.map(async (from) => {
        const records = from === rank ? [...told] : await mail.hear(from, key) as [number, unknown][];
        for (const [peer, record] of records) all[peer] = record;
      }));
      return all;
    };
    const all = exchange();
    all.catch(() => {}); // where a rank fails first, nobody waits for it
    return { told, all, begin };
  }

  let recovering: Promise<void> | undefined, recovered = 0;
  async function recoverAll() {
    for (const [receipt, [from, tag]] of open) if (!receipt.cancel()) count(from, tag);
    open.clear();
    const key = keyOf("sent"), failed = failure;
    const toOf = (at: number) =>
      [...sent].flatMap(([name, about]) =>
        name.startsWith(`${at} `) ? [[Number(name.split(" ")[1]), about] as const] : []
      );
    for (const to of processes) mail.tell(to, key, toOf(to));
    for (const from of processes) {
      const theirs = await mail.hear(from, key).catch((error) => {
        throw failure ?? failed ?? error; // a process that is gone cannot recover
      }) as ReturnType<typeof toOf>;
      for (const [tag, { count: many, bytes }] of theirs) {
        for (let missing = many - (received.get(`${from} ${tag}`) ?? 0); missing > 0; missing--) {
          await progress.receive(new Uint8Array(bytes), from, tag).arrived;
          count(from, tag);
        }
      }
    }
    await Promise.all(sending);
    epoch++;
    round = 0;
    telling = undefined;
    failure = undefined;
    const current = new RegExp(`^${number}\\.(\\d+) `);
    mail.forget((name) => Number(current.exec(name)?.[1] ?? epoch) < epoch);
  }

  function count(from: number, tag: number) {
    const name = `${from} ${tag}`;
    received.set(name, (received.get(name) ?? 0) + 1);
  }

  return {
    send(from, to, id, memory) {
      if (failure) return undefined;
      const at = processOf[to], tag = tagOf(from, to, id), name = `${at} ${tag}`;
      const done = progress.send(memory, at, tag).finally(() => sending.delete(done));
      done.catch(() => {});
      sending.add(done);
      sent.set(name, { count: (sent.get(name)?.count ?? 0) + 1, bytes: memory.length });
      return done;
    },
    async receive(from, to, id, memory, routine) {
      if (failure) throw failure;
      const at = processOf[from], tag = tagOf(from, to, id);
      const receipt = progress.receive(memory, at, tag, routine, `message ${from} ${to} ${id}`);
      open.set(receipt, [at, tag]);
      const arrived = receipt.arrived.then(() => {
        if (open.delete(receipt)) count(at, tag);
      });
      arrived.catch(() => {});
      const unlisten = progress.listen(); // so that a failure is heard of
      try {
        await unlessFailed(arrived);
      } finally {
        unlisten();
      }
    },
    agree(peer, told) {
      telling ??= newRound();
      const { told: here, all, begin } = telling;
      here.set(peer, told);
      if (here.size === own.length) {
        telling = undefined;
        begin();
      }
      return unlessFailed(all);
    },
    fail(error) {
      if (failure) return;
      end(error);
      const news = { epoch, message: error.message, notFinite: error instanceof NotFiniteError };
      for (const to of processes) if (to !== rank) mail.tell(to, `${number} failed`, news);
    },
    async recover() {
      recovering ??= recoverAll();
      const all = recovering;
      if (++recovered === own.length) [recovering, recovered] = [undefined, 0];
      await all;
    },
    close: unlisten,
  };
}
