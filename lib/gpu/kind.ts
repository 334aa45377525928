/** Which kind of device computes: what kernels, and with them workspaces and what layers keep, are chosen by. */
import type { Driver } from "./driver.ts";

/**
 * Devices on which the same kernels are fastest, before anything was measured: `swiftshader` is the bundled driver and the
 * browsers' own, `lavapipe` Mesa's and any other processor that poses as a GPU, `gpu` all hardware.
 */
export type DeviceKind = "gpu" | "lavapipe" | "swiftshader";
/** All of them, hardware first. */
export const deviceKinds: readonly DeviceKind[] = ["gpu", "lavapipe", "swiftshader"];

/** What of a GPU the choice of kernels depends on: all that a dry device has to be told. */
export interface GpuKind {
  /** What kernels are chosen by; of a dry GPU, the one it stands for. */
  readonly kind: DeviceKind;
  /** Whether the "GPU" is a processor: barriers and workgroup memory are dear there, registers cheap. */
  readonly software: boolean;
  /** Lanes in a subgroup, or 0 where subgroups are missing or their size varies. */
  readonly subgroupSize: number;
}

/** The kind of device that an adapter gives which says this of itself. */
export function kindOf(identity: string, software: boolean): DeviceKind {
  if (!software) return "gpu";
  return /swiftshader/i.test(identity) ? "swiftshader" : "lavapipe";
}

/**
 * A kind in full. Who says no more than that it is a software driver, and how wide its subgroups are, means SwiftShader by
 * four lanes, and lavapipe by others: that has four only where `LP_NATIVE_VECTOR_WIDTH` makes it.
 */
export function kindInFull({ kind, software = false, subgroupSize = 0 }: Partial<GpuKind>): GpuKind {
  if (kind) return { kind, software: kind !== "gpu", subgroupSize };
  return { kind: !software ? "gpu" : subgroupSize === 4 ? "swiftshader" : "lavapipe", software, subgroupSize };
}

/** The driver that has such devices. */
export function driverOf(kind: DeviceKind): Driver {
  return ({ gpu: "gpu", lavapipe: "system", swiftshader: "bundled" } as const)[kind];
}
