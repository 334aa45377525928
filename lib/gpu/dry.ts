/**
 * Devices that compute nothing and take no memory: everything else runs as on real ones, so that the ledger of a step on
 * them is the ledger of the same step anywhere, for models of any size.
 */
import { Device } from "./device.ts";
import type { OpenAdapter } from "./driver.ts";
import { defineFlags } from "./flags.ts";
import { Gpu } from "./gpu.ts";
import { driverOf, type GpuKind, kindInFull } from "./kind.ts";

/**
 * `count` dry devices, by default GPUs without subgroups of one size: `standsFor` says which kind of device they stand for, and
 * kernels, and with them workspaces, are chosen by it. They claim to have 16-bit floats.
 */
export function dryDevices(count: number, standsFor: Partial<GpuKind> = {}): Device[] {
  defineFlags();
  const full = kindInFull(standsFor);
  return Array.from({ length: count }, (_, rank) => new Device(rank, new Gpu(stub(full), full.kind)));
}

/** The largest buffer that the common Vulkan drivers bind. */
const largestBinding = 2 ** 31 - 4;

/**
 * Large ranges by their size, one for all devices there are: nobody looks into messages, and buffers of megabytes that come and go
 * with each device cost more in garbage collection than all else that these do.
 */
const large = new Map<number, WeakRef<ArrayBuffer>>();

function rangeOf(bytes: number): ArrayBuffer {
  if (bytes < 2 ** 16) return new ArrayBuffer(bytes);
  const range = large.get(bytes)?.deref() ?? new ArrayBuffer(bytes);
  large.set(bytes, new WeakRef(range));
  return range;
}

/** The part of WebGPU that this project calls, doing nothing. */
function stub({ kind, software, subgroupSize }: GpuKind): OpenAdapter {
  const nothing = () => {};
  const pass = { setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, end: nothing };
  const buffer = ({ size }: GPUBufferDescriptor) => ({
    // Later than whatever the ranks can record meanwhile, as on a device that is slower than its host: so that messages are
    // on their way as long, and take as much memory, as they may.
    mapAsync: () => new Promise<void>((resolve) => void setImmediate(() => resolve())),
    getMappedRange: (_from = 0, bytes = size) => rangeOf(bytes),
    unmap: nothing,
    destroy: nothing,
  });
  const device = {
    features: new Set(["shader-f16", ...subgroupSize ? ["subgroups"] : []]),
    limits: { maxBufferSize: largestBinding, maxStorageBufferBindingSize: largestBinding },
    lost: new Promise(nothing),
    queue: { submit: nothing, writeBuffer: nothing, onSubmittedWorkDone: () => Promise.resolve() },
    addEventListener: nothing,
    pushErrorScope: nothing,
    popErrorScope: () => Promise.resolve(null),
    removeEventListener: nothing,
    destroy: nothing,
    createShaderModule: () => ({}),
    createComputePipeline: () => ({ getBindGroupLayout: () => ({}) }),
    createBindGroup: () => ({}),
    createBuffer: buffer,
    createCommandEncoder: () => ({ beginComputePass: () => pass, copyBufferToBuffer: nothing, finish: () => ({}) }),
  };
  const sizes = { subgroupMinSize: subgroupSize, subgroupMaxSize: subgroupSize };
  const info = { vendor: "", description: "no device, shapes only", isFallbackAdapter: software, ...sizes };
  return {
    driver: driverOf(kind),
    implementation: "dawn",
    instance: {},
    adapter: { info },
    device,
  } as unknown as OpenAdapter;
}
