/** Tied parameters: one parameter in two places, whose gradients belong together. */
import type { Device } from "../gpu/device.ts";
import type { Model } from "../models/model.ts";
import { add } from "../ops/elementwise.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import type { Channels } from "./channel.ts";

/**
 * Gives both copies of each tied parameter the sum of their gradients, so that both are updated alike. Each rank calls
 * this once its own gradients are complete; copies on two ranks cross paths through the channels.
 */
export async function exchangeTied(model: Model, channels: Channels, device: Device): Promise<void> {
  const posts: (() => void)[] = [];
  const arrivals: { key: string; own: Tensor; other: Tensor }[] = [];
  for (const [index, pair] of (model.tied ?? []).entries()) {
    const gradients = pair.map(({ gradient }) => gradient);
    if (gradients[0].device === gradients[1].device) {
      if (gradients[0].device === device) addInto(gradients, gradients[0], gradients[1]);
      continue;
    }
    for (const [side, own] of gradients.entries()) {
      if (own.device !== device) continue;
      const target = gradients[1 - side].device;
      posts.push(channels.send(target, `tied ${index} to ${1 - side}`, own));
      arrivals.push({ key: `tied ${index} to ${side}`, own, other: empty(device, own.shape, "workspace") });
    }
  }
  device.submit();
  posts.forEach((post) => post());
  for (const { key, own, other } of arrivals) {
    await channels.receive(key, other);
    addInto([own], own, other);
    release(other);
  }
  device.submit();
}

/** Writes a + b over each of `targets`. */
function addInto(targets: readonly Tensor[], a: Tensor, b: Tensor): void {
  const { device } = a;
  const sum = empty(device, a.shape, "workspace");
  add(sum, a, b);
  for (const { storage, offset, bytes } of targets) device.copy(sum.storage.buffer, 0, storage.buffer, offset, bytes);
  release(sum);
}
