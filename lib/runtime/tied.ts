/** Tied parameters: one parameter in two places, whose gradients belong together. */
import type { Device } from "../gpu/device.ts";
import type { WaitHistory } from "../gpu/poll.ts";
import type { Model } from "../models/model.ts";
import { add } from "../ops/elementwise.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import type { Channels } from "./channel.ts";
import { type Stage, stageOf } from "./stage.ts";

/** One rank's part in the exchange of tied gradients. */
export interface TiedExchange {
  /** Records that each tied gradient of the rank becomes the sum of both. */
  record(): void;
  /** Waits for the other ranks' gradients, then submits the recording that adds them, `record` being part of it. */
  submit(commands: GPUCommandBuffer | undefined): Promise<void>;
}

/**
 * Sends a rank's tied gradients to the ranks of their twins; called once they are complete. Both twins are given the same
 * sum, so that they are updated alike. `historyOf` as in `Step`.
 */
export function sendTied(
  model: Model,
  stages: readonly Stage[],
  channels: Channels,
  device: Device,
  historyOf: (name: string) => WaitHistory,
): TiedExchange {
  const posts: (() => void)[] = [];
  const neighbours: (readonly Tensor[])[] = []; // twins on this one device
  const arrivals: { key: string; own: Tensor; other: Tensor }[] = [];
  for (const [index, pair] of (model.tied ?? []).entries()) {
    const gradients = pair.map((twin) => stageOf(stages, twin).placed.parameter(twin).gradient);
    if (gradients[0].device === gradients[1].device) {
      if (gradients[0].device === device) neighbours.push(gradients);
      continue;
    }
    for (const [side, own] of gradients.entries()) {
      if (own.device !== device) continue;
      const target = gradients[1 - side].device;
      const key = `tied ${index} to ${1 - side}`;
      posts.push(channels.send(target, key, own, historyOf(key)));
      arrivals.push({ key: `tied ${index} to ${side}`, own, other: empty(device, own.shape, "workspace") });
    }
  }
  device.submit();
  posts.forEach((post) => post());
  return {
    record() {
      for (const gradients of neighbours) addInto(gradients, gradients[0], gradients[1]);
      for (const { own, other } of arrivals) addInto([own], own, other);
    },
    async submit(commands) {
      for (const { key, other } of arrivals) await channels.receive(key, other);
      device.submit(commands);
      for (const { other } of arrivals) release(other);
    },
  };
}

/** Writes a + b over each of `targets`. */
function addInto(targets: readonly Tensor[], a: Tensor, b: Tensor): void {
  const { device } = a;
  const sum = empty(device, a.shape, "workspace");
  add(sum, a, b);
  for (const { storage, offset, bytes } of targets) device.copy(sum.storage.buffer, 0, storage.buffer, offset, bytes);
  release(sum);
}
