/** What is asked of adapters, whoever opens them, and the makers that they name; needs nothing of Node's. */

/** Makers of GPUs by their number on the PCI bus. */
export const pciVendors: Readonly<Record<string, string>> = { "0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel" };

/** Features that kernels and timing use where a device has them. */
export const usedFeatures = [
  "timestamp-query",
  "subgroups",
  "shader-f16",
  "chromium-experimental-subgroup-matrix",
] as GPUFeatureName[]; // the last is no part of WebGPU yet
/** Limits asked for at the adapter's best; the defaults (16 KiB of workgroup memory, say) are made for the web. */
export const usedLimits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxStorageBuffersPerShaderStage",
] as const;

/** Of these what an adapter has, for its `requestDevice`. */
export function usedOf({ features, limits }: GPUAdapter): GPUDeviceDescriptor {
  return {
    requiredFeatures: usedFeatures.filter((feature) => features.has(feature)),
    requiredLimits: Object.fromEntries(usedLimits.map((name) => [name, limits[name] as number])),
  };
}
