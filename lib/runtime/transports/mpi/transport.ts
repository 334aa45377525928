/**
 * The transport between ranks of several processes, by MPI. WebGPU has no memory that MPI could read: a tensor is copied into a
 * staging buffer, and MPI sends straight from its mapped range; the receiver's MPI writes straight into the range of a buffer that
 * is mapped too, from which the device takes it. No copy is made by this process in between.
 *
 * Records are told from each process to each (`mail.ts`). Neither agreements nor sums are MPI's own collective calls: one that has
 * begun cannot be called off when a rank fails, and the others would wait for ever.
 */
import { reasonOf } from "../../../errors.ts";
import type { Device } from "../../../gpu/device.ts";
import { RankError, type Transport } from "../../transport.ts";
import type { Connect } from "../../world.ts";
import { reduceByMessages } from "../reduce.ts";
import { type Channel, createChannel, type Layout } from "./channel.ts";
import type { Job } from "./job.ts";

/** Makes the transports of the peers that are in this process; a pipeline has a channel of its own. */
export function overMpi(job: Job, layout: Layout, peers: readonly number[]): Connect {
  return (devices) => {
    const channel = createChannel(job, layout, peers);
    return devices.map((device, at) => createEnd(channel, device, peers[at]));
  };
}

/** Buffers of one kind that the host has mapped or will map, kept by size. */
interface Ring {
  /** A free one, or a new one, counted as in use. */
  take(bytes: number): GPUBuffer;
  /** Counts one as free, to be taken again from now on, or once `ready` has settled. */
  give(buffer: GPUBuffer, bytes: number, ready?: Promise<unknown>): void;
  /** Destroys one that was taken: what is under way with it may never end. */
  lose(buffer: GPUBuffer, bytes: number): void;
  trim(): void;
}

function createRing(device: Device, make: (bytes: number) => GPUBufferDescriptor): Ring {
  const { gpu, ledger, pool } = device;
  const free = new Map<number, GPUBuffer[]>();
  /** Those that are free as soon as the device has done with them. */
  const soon = new Map<GPUBuffer, number>();
  const freeOf = (bytes: number) => {
    let list = free.get(bytes);
    if (!list) free.set(bytes, list = []);
    return list;
  };
  const destroy = (buffer: GPUBuffer, bytes: number) => {
    buffer.destroy();
    pool.reserve(-bytes, "transfer");
    ledger.spare(-bytes);
  };
  return {
    take(bytes) {
      let buffer = freeOf(bytes).pop();
      if (buffer) ledger.spare(-bytes);
      else {
        pool.reserve(bytes, "transfer");
        buffer = gpu.device.createBuffer({ ...make(bytes), label: device.labelOf(bytes, "transfer") });
      }
      ledger.add("transfer", bytes);
      return buffer;
    },
    give(buffer, bytes, ready) {
      ledger.remove("transfer", bytes);
      ledger.spare(bytes);
      if (!ready) return void freeOf(bytes).push(buffer);
      soon.set(buffer, bytes);
      ready.then(() => {
        if (soon.delete(buffer)) freeOf(bytes).push(buffer);
      }, () => {
        if (soon.delete(buffer)) destroy(buffer, bytes);
      });
    },
    lose(buffer, bytes) {
      buffer.destroy();
      pool.reserve(-bytes, "transfer");
      ledger.remove("transfer", bytes);
    },
    trim() {
      for (const [bytes, list] of free) list.splice(0).forEach((buffer) => destroy(buffer, bytes));
      for (const [buffer, bytes] of soon) destroy(buffer, bytes);
      soon.clear();
    },
  };
}

function createEnd(channel: Channel, device: Device, own: number): Transport {
  const { pool } = device;
  const outgoing = createRing(device, (size) => ({ size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ }));
  const incoming = createRing(
    device,
    (size) => ({ size, usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.MAP_WRITE, mappedAtCreation: true }),
  );
  const trim = () => [outgoing, incoming].forEach((ring) => ring.trim());
  const unshare = pool.shareWith(trim);
  /** Buffers that hold a message, with what gives each back when the step has failed. */
  const underway = new Map<GPUBuffer, () => void>();

  const transport: Transport = {
    send(to, id, { storage, offset, bytes: exact }) {
      const bytes = Math.ceil(exact / 4) * 4; // copies take whole words
      const staging = outgoing.take(bytes);
      const lost = () => {
        underway.delete(staging);
        outgoing.lose(staging, bytes);
      };
      underway.set(staging, lost);
      device.copy(storage.buffer, offset, staging, 0, bytes);
      return () =>
        void device.mapped(staging, `message ${id} of rank ${own}`).then(async () => {
          // Where the step has failed meanwhile, the buffer is given up.
          if (!underway.has(staging)) return;
          const done = channel.send(own, to, id, new Uint8Array(staging.getMappedRange()));
          if (!done) return;
          await done;
          if (!underway.delete(staging)) return;
          staging.unmap();
          outgoing.give(staging, bytes);
        }).catch((error) => {
          if (!underway.has(staging)) return; // of a step that has failed
          channel.fail(new RankError(`Rank ${own} failed to send message ${id} to rank ${to}: ${reasonOf(error)}`));
        });
    },
    async receive(from, id, target) {
      const bytes = Math.ceil(target.bytes / 4) * 4;
      const upload = incoming.take(bytes);
      underway.set(upload, () => {
        underway.delete(upload);
        incoming.lose(upload, bytes);
      });
      await channel.receive(from, own, id, new Uint8Array(upload.getMappedRange()), device.routine);
      underway.delete(upload);
      upload.unmap();
      device.submit(); // ahead of what comes next, behind what was recorded before
      device.copy(upload, 0, target.storage.buffer, target.offset, bytes);
      device.submit();
      incoming.give(upload, bytes, device.gpu.wait(upload.mapAsync(GPUMapMode.WRITE), device.routine, `upload ${id}`));
    },
    reduce: (ranks, id, tensor) => reduceByMessages(transport, own, ranks, id, tensor),
    agree: <Told>(told: Told) => channel.agree(own, told) as Promise<readonly Told[]>,
    fail: channel.fail,
    async recover() {
      await channel.recover(); // until then MPI may read from and write to mapped ranges
      for (const lost of [...underway.values()]) lost();
    },
    close() {
      trim();
      unshare();
      channel.close();
    },
  };
  return transport;
}
