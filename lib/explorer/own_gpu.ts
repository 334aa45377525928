/// <reference lib="dom" />
/** The GPU of whoever looks at the page. */
import { UserError } from "../errors.ts";
import { usedOf } from "../gpu/adapters.ts";
import { Device } from "../gpu/device.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { Gpu } from "../gpu/gpu.ts";
import { firstLine } from "../text.ts";
import type { GpuDescription } from "./run_messages.ts";

/**
 * The adapter.
 *
 * @throws {UserError} Says what is missing, and what would be right.
 */
export async function findAdapter(): Promise<GPUAdapter> {
  const gpu = (globalThis.navigator as Partial<Navigator> | undefined)?.gpu;
  if (!gpu) {
    throw new UserError(
      globalThis.isSecureContext
        ? "This browser has no WebGPU (navigator.gpu is missing): open the page in Chrome or Edge 121 or later; on Linux they may " +
          "need chrome://flags/#enable-unsafe-webgpu"
        : "WebGPU is for secure pages alone: open the file from the disk, or by https",
    );
  }
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new UserError(
      "This browser has WebGPU and finds no GPU for it: switch hardware acceleration on, or see chrome://gpu for the reason",
    );
  }
  if (!adapter.features.has("timestamp-query")) {
    throw new UserError(
      `${
        nameOf(adapter)
      } has no timestamps here (the feature timestamp-query), which steps of virtual devices are composed ` +
        "from: Chrome and Edge 121 or later have them on most GPUs",
    );
  }
  return adapter;
}

/** What the browser calls the adapter: at times the maker alone. */
export function nameOf({ info }: GPUAdapter): string {
  const { vendor, architecture, device, description } = info;
  return [vendor, architecture, device, description].filter(Boolean).join(" ") || "a GPU without a name";
}

/** What it says of itself. */
export function describe({ info }: GPUAdapter, { gpu }: Device): GpuDescription {
  const { vendor, architecture, device, description } = info, { software, subgroupSize } = gpu.info;
  const features = [...gpu.device.features].sort();
  return { vendor, architecture, device, description, software: Boolean(software), subgroupSize, features };
}

/**
 * Virtual devices on the adapter, one a rank.
 *
 * @throws {UserError} Where it gives no device.
 */
export async function openOwn(adapter: GPUAdapter, ranks: number): Promise<DeviceSet> {
  const driver = adapter.info.isFallbackAdapter ? "bundled" : "gpu";
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice(usedOf(adapter));
  } catch (error) {
    throw new UserError(`${nameOf(adapter)} gives no device: ${firstLine(error)}`);
  }
  const gpu = new Gpu({ driver, implementation: "dawn", instance: navigator.gpu, adapter, device });
  const devices = Array.from({ length: ranks }, (_, rank) => new Device(rank, gpu));
  return {
    mode: "virtual",
    devices,
    adapter: nameOf(adapter),
    driver,
    close() {
      devices.forEach((each) => each.close());
      gpu.close();
    },
  };
}
