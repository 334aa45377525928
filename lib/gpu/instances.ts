/**
 * Dawn's instances, used again. An instance has no `destroy`: it and the driver's threads, descriptors and mappings behind
 * it stay until the garbage collector finds it, and a process that opens and closes devices had hundreds of threads before
 * that happened. A device can be destroyed, so a closed device leaves its instance here for the next one.
 */
import process from "node:process";
import { forgetNative } from "./garbage.ts";

/** The package that makes instances. */
export type Dawn = typeof import("webgpu");

/**
 * Dawn's switches. `allow_unsafe_apis` lets experimental features be asked for; `vulkan_enable_f16_on_nvidia` is needed
 * for `shader-f16` there; without `timestamp_quantization` timestamps come in nanoseconds, not in steps of 65,536.
 */
const dawnFlags = [
  "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia",
  "disable-dawn-features=timestamp_quantization",
];

/** Two for each of 16 ranks; older ones are left to the garbage collector, in a process whose environment keeps changing. */
const mostParked = 32;
/** What an instance counts for among the mappings that wait for the garbage collector: for its threads, few may wait. */
const mappingsOfInstance = 1024;
/** Instances without a device, the oldest first. */
const parked: GPU[] = [];
/** What each instance was made under. */
const origins = new WeakMap<GPU, string>();

/** An instance to ask for an adapter. */
export interface Taken {
  readonly instance: GPU;
  /** Whether it has not looked for adapters yet. */
  readonly fresh: boolean;
}

/**
 * An instance for the environment, and the working directory, as they will be during the call: one without a device if
 * there is any.
 */
export function takeInstance(
  { create }: Dawn,
  variables: Readonly<Record<string, string | undefined>>,
  folder: string | undefined,
  within: <T>(call: () => T) => T,
): Taken {
  const environment = Object.entries({ ...process.env, ...variables }).sort(([a], [b]) => a < b ? -1 : 1);
  const origin = JSON.stringify([folder, environment]);
  const known = parked.findIndex((instance) => origins.get(instance) === origin);
  if (known >= 0) return { instance: parked.splice(known, 1)[0], fresh: false };
  const instance = within(() => create(dawnFlags));
  origins.set(instance, origin);
  return { instance, fresh: true };
}

/** Takes back an instance whose device is destroyed, or that gave none. */
export function parkInstance(instance: GPU): void {
  if (!origins.has(instance)) return; // of a dry device, or Deno's, of which there is one
  parked.push(instance);
  if (parked.length <= mostParked) return;
  parked.shift();
  forgetNative(mappingsOfInstance);
}
