/** One WebGPU for everybody: this project's driver, with its flags, and its way of waiting. */
import process from "node:process";
import { forcedDriver, openAdapter } from "../../lib/gpu/driver.ts";
import { polled } from "../../lib/gpu/poll.ts";

/**
 * Puts the driver that this project chooses behind `navigator.gpu`, where the peers look, on one thread if it is a
 * software driver. Dawn's polling is slowed down while it waits (see `lib/gpu/poll.ts`); what a peer submits or asks for
 * makes it attentive again, as this project's own calls do, so that no wait ends later for a peer.
 */
export async function installWebGpu(): Promise<void> {
  process.env.LP_NUM_THREADS ??= "1";
  const { instance, device } = await openAdapter(0, forcedDriver());
  device.destroy(); // the adapters that the peers will ask for come from the same instance
  if (typeof navigator === "undefined") {
    Object.defineProperty(globalThis, "navigator", {
      value: {},
      configurable: true,
    });
  }
  Object.defineProperty(globalThis.navigator, "gpu", {
    value: instance,
    configurable: true,
  });
  notes(GPUQueue.prototype, "onSubmittedWorkDone");
  notes(GPUBuffer.prototype, "mapAsync");
}

function notes<Name extends string>(
  prototype: Record<Name, (...args: never[]) => Promise<unknown>>,
  name: Name,
): void {
  const original = prototype[name];
  prototype[name] = function (this: unknown, ...args: never[]) {
    return polled(original.apply(this, args));
  };
}
