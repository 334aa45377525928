/**
 * Channels between ranks. WebGPU has no copy from device to device, so a tensor goes through host memory: the sender
 * copies it into a staging buffer that the host can map, and the receiver's queue writes it from there, without a copy in between.
 */
import type { Device } from "../gpu/device.ts";
import type { WaitHistory } from "../gpu/poll.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import { type Promised, promised } from "./promised.ts";

/** The channels of one pipeline. A message is named by its key; each key is sent once and received once a step. */
export interface Channels {
  /**
   * Records the copy of `tensor` out of its device. To be called once that is submitted: the returned function, which posts
   * the message as soon as the copy has been made. Nothing waits. `history` tells how long that took in the last steps.
   */
  send(to: Device, key: string, tensor: Tensor, history?: WaitHistory): () => void;
  /** Waits for the message, then writes it into `target`, ahead of whatever is submitted there afterwards. */
  receive(key: string, target: Tensor): Promise<void>;
  /** Ends every wait with this error: a rank has failed, and what the others wait for will not come. */
  fail(error: unknown): void;
  /** Forgets failures and messages that nobody received. */
  reset(): void;
  /** Destroys the staging buffers. */
  close(): void;
}

/** Writes a message where it goes, and frees what carried it. */
type Deliver = (target: Tensor) => void;

/** Channels for any pairs of ranks; those on one GPU copy there instead. */
export function createChannels(): Channels {
  const mails = new Map<string, Promised<Deliver>>();
  /** Free staging buffers of each device, by size. */
  const rings = new Map<Device, Map<number, GPUBuffer[]>>();
  /** Undo what the devices' pools were told. */
  const ends: (() => void)[] = [];
  /** Takes back the staging buffer of a message that was sent and never received. */
  const underway = new Set<() => void>();
  let failure: { error: unknown } | undefined;

  function mail(key: string): Promised<Deliver> {
    let entry = mails.get(key);
    if (!entry) {
      mails.set(key, entry = promised());
      if (failure) entry.reject(failure.error);
    }
    return entry;
  }

  function stagingOf(device: Device, bytes: number): GPUBuffer[] {
    let ring = rings.get(device);
    if (!ring) {
      rings.set(device, ring = new Map());
      ends.push(device.pool.shareWith(() => trim(device)));
    }
    let free = ring.get(bytes);
    if (!free) ring.set(bytes, free = []);
    return free;
  }

  function trim(device: Device) {
    for (const [bytes, free] of rings.get(device)!) {
      for (const buffer of free.splice(0)) {
        buffer.destroy();
        device.pool.reserve(-bytes, "transfer");
        device.ledger.spare(-bytes);
      }
    }
  }

  return {
    send(to, key, tensor, history) {
      const { device: from, storage, offset } = tensor;
      const bytes = Math.ceil(tensor.bytes / 4) * 4; // copies take whole words, an odd number of f16 ends inside one
      const entry = mail(key); // now: after a failed step, what still comes in must not meet the next step's message
      if (from.gpu === to.gpu) {
        const parcel = empty(from, tensor.shape, "transfer", tensor.dtype);
        from.copy(storage.buffer, offset, parcel.storage.buffer, 0, bytes);
        return () =>
          entry.resolve((target) => {
            to.copy(parcel.storage.buffer, 0, target.storage.buffer, target.offset, bytes);
            to.submit(); // before the parcel's memory can be written again
            release(parcel);
          });
      }
      const free = stagingOf(from, bytes);
      let staging = free.pop();
      if (staging) from.ledger.spare(-bytes);
      else {
        from.pool.reserve(bytes, "transfer");
        const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ;
        staging = from.gpu.device.createBuffer({ size: bytes, usage });
      }
      from.ledger.add("transfer", bytes);
      const done = () => {
        free.push(staging);
        from.ledger.spare(bytes);
        from.ledger.remove("transfer", bytes);
        underway.delete(lost);
      };
      const lost = () => {
        staging.destroy(); // its map may still be pending
        from.pool.reserve(-bytes, "transfer");
        from.ledger.remove("transfer", bytes);
      };
      underway.add(lost); // first: whatever fails from here on, the buffer is accounted for
      from.copy(storage.buffer, offset, staging, 0, bytes);
      const deliver: Deliver = (target) => {
        to.write(target, staging.getMappedRange());
        staging.unmap();
        done();
      };
      return () => void from.mapped(staging, history).then(() => entry.resolve(deliver), entry.reject);
    },
    async receive(key, target) {
      const deliver = await mail(key).promise;
      mails.delete(key);
      deliver(target);
    },
    fail(error) {
      failure ??= { error };
      for (const { reject } of mails.values()) reject(error);
    },
    reset() {
      mails.clear();
      for (const lost of underway) lost();
      underway.clear();
      failure = undefined;
    },
    close() {
      for (const device of rings.keys()) trim(device);
      rings.clear();
      for (const end of ends.splice(0)) end();
    },
  };
}
