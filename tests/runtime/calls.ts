/** Counts what is asked of WebGPU's devices: they are wrapped, and do everything as before. */
import type { DeviceSet } from "../../lib/gpu/devices.ts";

/** How often each was called, on all devices together. */
export interface Calls {
  buffers: number;
  bindGroups: number;
  /** Compute pipelines and shader modules. */
  compiled: number;
  encoders: number;
  passes: number;
  submits: number;
  /** Waits of the host: buffers mapped, and ends of work asked for. */
  maps: number;
  idles: number;
}

const none: Calls = {
  buffers: 0,
  bindGroups: 0,
  compiled: 0,
  encoders: 0,
  passes: 0,
  submits: 0,
  maps: 0,
  idles: 0,
};

/** Counts from now on; the function it returns gives the counts since it was called last. Only for devices that have made no buffers yet. */
export function countCalls({ devices }: DeviceSet): () => Calls {
  let calls = { ...none };
  /** Counts calls of a method, and lets `wrap` look at what they return. */
  const count = <T extends object>(
    object: T,
    method: keyof T & string,
    what: keyof Calls,
    wrap?: (made: never) => void,
  ) => {
    const original = (object[method] as (...given: unknown[]) => unknown).bind(object);
    const counted = (...given: unknown[]) => {
      calls[what]++;
      const made = original(...given);
      wrap?.(made as never);
      return made;
    };
    Object.defineProperty(object, method, { value: counted, configurable: true });
  };
  for (const { device, queue } of new Set(devices.map(({ gpu }) => gpu))) {
    count(device, "createBuffer", "buffers", (buffer: GPUBuffer) => count(buffer, "mapAsync", "maps"));
    count(device, "createBindGroup", "bindGroups");
    count(device, "createComputePipeline", "compiled");
    count(device, "createShaderModule", "compiled");
    count(device, "createCommandEncoder", "encoders", (encoder: GPUCommandEncoder) => {
      count(encoder, "beginComputePass", "passes");
    });
    count(queue, "submit", "submits");
    count(queue, "onSubmittedWorkDone", "idles");
  }
  return () => {
    const counted = calls;
    calls = { ...none };
    return counted;
  };
}
