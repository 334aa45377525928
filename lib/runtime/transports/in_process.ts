/**
 * The transport between ranks of one process. WebGPU has no copy from device to device, so a tensor goes through host memory:
 * the sender copies it into a staging buffer that the host can map, and the receiver's queue writes it from there, without a
 * copy in between. Ranks on one GPU copy there instead.
 */
import type { Device } from "../../gpu/device.ts";
import { empty, release, type Tensor } from "../../tensor.ts";
import { type Promised, promised } from "../promised.ts";
import type { RankError, Transport } from "../transport.ts";
import { reduceByMessages } from "./reduce.ts";

/** Writes a message where it goes, and frees what carried it. */
type Deliver = (target: Tensor) => void;

/** Where the ranks of a process meet. */
interface Hub {
  /** The message from one rank to another with this number: on its way, or waited for. */
  mail(from: number, to: number, id: number): Promised<Deliver>;
  /** Forgets a message that has been delivered. */
  delivered(from: number, to: number, id: number): void;
  /** Enters a rank's record, and waits for all. */
  agree(rank: number, told: unknown): Promise<readonly unknown[]>;
  fail(error: RankError): void;
  recover(): void;
}

/** The transports of all ranks, whose devices these are. */
export function inProcess(devices: readonly Device[]): readonly Transport[] {
  const hub = createHub(devices.length);
  return devices.map((device, rank) => createEnd(hub, device, rank, (to) => devices[to].gpu === device.gpu));
}

function createHub(ranks: number): Hub {
  const mails = new Map<string, Promised<Deliver>>();
  const keyOf = (from: number, to: number, id: number) => `${from} ${to} ${id}`;
  let failure: RankError | undefined;
  const newRound = () => {
    const all = promised<readonly unknown[]>();
    if (failure) all.reject(failure);
    return { told: new Array<unknown>(ranks), missing: ranks, all };
  };
  let round = newRound();
  return {
    mail(from, to, id) {
      const key = keyOf(from, to, id);
      let entry = mails.get(key);
      if (!entry) {
        mails.set(key, entry = promised());
        if (failure) entry.reject(failure);
      }
      return entry;
    },
    delivered: (from, to, id) => void mails.delete(keyOf(from, to, id)),
    agree(rank, told) {
      const { all } = round;
      round.told[rank] = told;
      if (--round.missing === 0) {
        all.resolve(round.told);
        round = newRound();
      }
      return all.promise;
    },
    fail(error) {
      failure ??= error;
      for (const { reject } of mails.values()) reject(error);
      round.all.reject(error);
    },
    recover() {
      failure = undefined;
      mails.clear();
      round = newRound();
    },
  };
}

function createEnd(hub: Hub, device: Device, rank: number, isOnSameGpu: (to: number) => boolean): Transport {
  const { gpu, ledger, pool } = device;
  /** Free staging buffers, by size. */
  const ring = new Map<number, GPUBuffer[]>();
  const unshare = pool.shareWith(trim);
  /** Takes back the staging buffer of a message that was sent and never received. */
  const underway = new Set<() => void>();

  function trim() {
    for (const [bytes, free] of ring) {
      for (const buffer of free.splice(0)) {
        buffer.destroy();
        pool.reserve(-bytes, "transfer");
        ledger.spare(-bytes);
      }
    }
  }

  function freeOf(bytes: number): GPUBuffer[] {
    let free = ring.get(bytes);
    if (!free) ring.set(bytes, free = []);
    return free;
  }

  const transport: Transport = {
    send(to, id, { storage, offset, shape, dtype, bytes: exact }) {
      const bytes = Math.ceil(exact / 4) * 4; // copies take whole words, an odd number of f16 ends inside one
      const mail = hub.mail(rank, to, id); // now: after a failed step, what still comes in must not meet the next step's message
      if (isOnSameGpu(to)) {
        const parcel = empty(device, shape, "transfer", dtype);
        device.copy(storage.buffer, offset, parcel.storage.buffer, 0, bytes);
        return () =>
          mail.resolve((target) => {
            target.device.copy(parcel.storage.buffer, 0, target.storage.buffer, target.offset, bytes);
            target.device.submit(); // before the parcel's memory can be written again
            release(parcel);
          });
      }
      const free = freeOf(bytes);
      let staging = free.pop();
      if (staging) ledger.spare(-bytes);
      else {
        pool.reserve(bytes, "transfer");
        const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ;
        staging = gpu.device.createBuffer({ size: bytes, usage, label: device.labelOf(bytes, "transfer") });
      }
      ledger.add("transfer", bytes);
      const lost = () => {
        staging.destroy(); // its map may still be pending
        pool.reserve(-bytes, "transfer");
        ledger.remove("transfer", bytes);
      };
      underway.add(lost); // first: whatever fails from here on, the buffer is accounted for
      device.copy(storage.buffer, offset, staging, 0, bytes);
      const deliver: Deliver = (target) => {
        target.device.write(target, staging.getMappedRange());
        staging.unmap();
        free.push(staging);
        ledger.spare(bytes);
        ledger.remove("transfer", bytes);
        underway.delete(lost);
      };
      return () =>
        void device.mapped(staging, `message ${id} of rank ${rank}`).then(() => mail.resolve(deliver), mail.reject);
    },
    receive: (from, id, target) =>
      hub.mail(from, rank, id).promise.then((deliver) => {
        hub.delivered(from, rank, id);
        deliver(target);
      }),
    reduce: (ranks, id, tensor) => reduceByMessages(transport, rank, ranks, id, tensor),
    agree: <Told>(own: Told) => hub.agree(rank, own) as Promise<readonly Told[]>,
    fail: hub.fail,
    recover() {
      hub.recover();
      for (const lost of underway) lost();
      underway.clear();
      return Promise.resolve();
    },
    close() {
      trim();
      unshare();
    },
  };
  return transport;
}
