/**
 * Faults that no test can ask a driver for, put into Dawn's objects: memory that runs out, a device that is lost, an adapter that
 * goes away, small limits. Everything else is the driver's own.
 */
import { globals } from "webgpu";

// deno-lint-ignore no-explicit-any
const classes = globals as any;

/** What goes wrong, and when; counted over all devices from the last {@link inject} on, from 1. */
export interface Faults {
  /** The buffer for which there is no memory: it is invalid, and the device reports that the memory has run out. */
  readonly outOfMemoryAt?: number;
  /** The submission with which its device is lost. */
  readonly lostAtSubmission?: number;
  /** The buffer with whose creation its device is lost. */
  readonly lostAtBuffer?: number;
  /** The search for an adapter that finds none any more. */
  readonly noAdapterAt?: number;
  /** The adapter that is there, and gives no device. */
  readonly noDeviceAt?: number;
  /** The most bytes that a buffer may have, and what may be bound of it. */
  readonly largestBuffer?: number;
  /** The most workgroups along an axis. */
  readonly mostWorkgroups?: number;
  /** Those on which something goes wrong, by the label of their device, "rank 1"; all by default. */
  readonly only?: string;
}

/** What has been counted since. */
export interface Counts {
  buffers: number;
  submissions: number;
  adapters: number;
  devices: number;
  /** Whether the fault has happened. */
  happened: boolean;
}

let faults: Faults = {}, counts = nothing();
const lose = new WeakMap<GPUDevice, () => void>();
const ownerOf = new WeakMap<GPUQueue, GPUDevice>();
/** Of each device the errors that its open scopes have caught; and those that listen to it. */
const scopes = new WeakMap<GPUDevice, { filter: GPUErrorFilter; error?: GPUError }[]>();
const listeners = new WeakMap<GPUDevice, Set<(event: Event) => void>>();

function nothing(): Counts {
  return { buffers: 0, submissions: 0, adapters: 0, devices: 0, happened: false };
}

/** From now on these faults happen, and no others. Returns what is counted from here on. */
export function inject(wanted: Faults = {}): Counts {
  install();
  faults = wanted;
  return counts = nothing();
}

const isTheirs = (device: GPUDevice) => faults.only === undefined || device.label === faults.only;

/** Puts a method in place of one of Dawn's, which it may call. */
function wrap<Class extends object>(
  name: string,
  method: keyof Class,
  // deno-lint-ignore no-explicit-any
  make: (original: (...args: any[]) => any) => (this: Class, ...args: any[]) => unknown,
) {
  const { prototype } = classes[name];
  const original = prototype[method];
  prototype[method] = make(original);
}

let installed = false;
function install() {
  if (installed) return;
  installed = true;
  wrap<GPU>("GPU", "requestAdapter", (original) =>
    function (...args) {
      if (++counts.adapters !== faults.noAdapterAt) return original.apply(this, args);
      counts.happened = true;
      return Promise.resolve(null);
    });
  wrap<GPUAdapter>("GPUAdapter", "requestDevice", (original) =>
    async function (...args) {
      if (++counts.devices === faults.noDeviceAt) {
        counts.happened = true;
        throw new DOMException("vkCreateDevice failed with VK_ERROR_INITIALIZATION_FAILED", "OperationError");
      }
      const device: GPUDevice = await original.apply(this, args);
      prepare(device);
      return device;
    });
  wrap<GPUDevice>("GPUDevice", "createBuffer", (original) =>
    function (descriptor: GPUBufferDescriptor) {
      if (!isTheirs(this)) return original.call(this, descriptor);
      counts.buffers++;
      if (counts.buffers === faults.lostAtBuffer) lose.get(this)!();
      if (counts.buffers !== faults.outOfMemoryAt) return original.call(this, descriptor);
      counts.happened = true;
      // A buffer that is too large for any device is as invalid as one for which there is no memory.
      pushScope.call(this, "validation");
      const buffer = original.call(this, { ...descriptor, size: 2 ** 48 });
      popScope.call(this).catch(() => {});
      const message =
        `vkAllocateMemory failed with VK_ERROR_OUT_OF_DEVICE_MEMORY\n - While calling [Device].CreateBuffer` +
        `([BufferDescriptor${descriptor.label ? ` "${descriptor.label}"` : ""}]).\n`;
      const error = new classes.GPUOutOfMemoryError(message);
      const scope = scopes.get(this)!.findLast(({ filter }) => filter === "out-of-memory");
      if (scope) scope.error ??= error;
      else report(this, error);
      return buffer;
    });
  wrap<GPUQueue>("GPUQueue", "submit", (original) =>
    function (...args) {
      const device = ownerOf.get(this);
      if (device && isTheirs(device) && ++counts.submissions === faults.lostAtSubmission) lose.get(device)!();
      return original.apply(this, args);
    });
  const device = classes.GPUDevice.prototype as GPUDevice;
  const { pushErrorScope: pushScope, popErrorScope: popScope } = device;
  wrap<GPUDevice>("GPUDevice", "pushErrorScope", (original) =>
    function (filter: GPUErrorFilter) {
      scopes.get(this)?.push({ filter });
      return original.call(this, filter);
    });
  wrap<GPUDevice>("GPUDevice", "popErrorScope", (original) =>
    async function () {
      const caught = scopes.get(this)?.pop()?.error;
      return await original.call(this) ?? caught ?? null;
    });
  wrap<GPUDevice>(
    "GPUDevice",
    "addEventListener",
    (original) =>
      function (type: string, listener: (event: Event) => void) {
        if (type === "uncapturederror") listeners.get(this)?.add(listener);
        return original.call(this, type, listener);
      },
  );
  wrap<GPUDevice>(
    "GPUDevice",
    "removeEventListener",
    (original) =>
      function (type: string, listener: (event: Event) => void) {
        listeners.get(this)?.delete(listener);
        return original.call(this, type, listener);
      },
  );
}

/** An opened device that can be lost as by its driver, not as one that was destroyed by its owner, and with smaller limits. */
function prepare(device: GPUDevice) {
  ownerOf.set(device.queue, device);
  scopes.set(device, []);
  listeners.set(device, new Set());
  let isLost = false;
  lose.set(device, () => {
    counts.happened = isLost = true;
    device.destroy();
  });
  const lost = device.lost.then((info) =>
    isLost ? { reason: "unknown", message: "vkQueueSubmit failed with VK_ERROR_DEVICE_LOST" } : info
  );
  Object.defineProperty(device, "lost", { value: lost });
  const { largestBuffer, mostWorkgroups } = faults;
  if (!isTheirs(device)) return;
  const limits = {
    ...largestBuffer === undefined ? {} : { maxBufferSize: largestBuffer, maxStorageBufferBindingSize: largestBuffer },
    ...mostWorkgroups === undefined ? {} : { maxComputeWorkgroupsPerDimension: mostWorkgroups },
  };
  const own = device.limits;
  Object.defineProperty(device, "limits", {
    value: new Proxy(own, {
      get: (_, name) => limits[name as keyof typeof limits] ?? own[name as keyof GPUSupportedLimits],
    }),
  });
}

/** What nobody has caught: Dawn tells it within the call. */
function report(device: GPUDevice, error: GPUError) {
  const event = Object.assign(new Event("uncapturederror", { cancelable: true }), { error });
  for (const listener of listeners.get(device)!) listener(event);
}
