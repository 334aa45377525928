/**
 * Which driver serves a rank: a real GPU, else the system's software driver, else the bundled one.
 *
 * Tried: Mesa's lavapipe and SwiftShader on Linux x86-64. Written from documentation and source but never tried: any real
 * GPU; several identical cards (told apart by PCI address through `DRI_PRIME`, which Mesa's device-select layer reads);
 * macOS and Windows (Dawn's default adapter, one GPU).
 */
import { readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { UserError } from "../errors.ts";
import { described } from "../rules.ts";
import { firstLine } from "../text.ts";
import { pciVendors, usedOf } from "./adapters.ts";
import { bundledDriver } from "./bundled.ts";
import { withEnvironment } from "./environment.ts";
import { type Implementation, loadWebGpu, type WebGpu } from "./implementation.ts";
import { parkInstance } from "./instances.ts";
import { loadLibrary } from "./library.ts";
import { withoutLimitWarnings } from "./limit_warnings.ts";

/** Where a device comes from. `TWOBP_DRIVER` set to one of these forces it. */
export type Driver = "gpu" | "system" | "bundled";
/** All of them, the preferred one first. */
export const driverNames: readonly Driver[] = ["gpu", "system", "bundled"];

/** An adapter and the instance it lives in: Dawn's must stay referenced as long as the device is used. */
export interface OpenAdapter {
  readonly driver: Driver;
  readonly implementation: Implementation;
  readonly instance: GPU;
  readonly adapter: GPUAdapter;
  readonly device: GPUDevice;
}

/** The driver the environment asks for, if any. Throws a {@link UserError} on a value that is none. */
export function forcedDriver(): Driver | undefined {
  const value = process.env.TWOBP_DRIVER;
  if (value) expectDriver(value, "TWOBP_DRIVER");
  return value ? value as Driver : undefined;
}

/** Throws a {@link UserError} where `value`, given as `name`, is no driver. */
export function expectDriver(value: unknown, name: string): void {
  if ((driverNames as readonly unknown[]).includes(value)) return;
  throw new UserError(`${name} is ${described(value)}, but must be one of ${driverNames.join(", ")}`);
}

/**
 * Opens a device for `rank` on the first driver that has one, or on `wanted` alone. `card` is the PCI address of the
 * GPU to use where there are several.
 */
export async function openAdapter(rank: number, wanted?: Driver, card?: string): Promise<OpenAdapter> {
  const webgpu = await loadWebGpu();
  const candidates = wanted ? [wanted] : driversHere();
  const failures: string[] = [];
  for (const driver of candidates) {
    const opened = await tryDriver(webgpu, driver, rank, card);
    if ("adapter" in opened) return opened;
    failures.push(`${driver}: ${opened.missing}`);
    if (wanted) throw new UserError(`No device on the driver "${wanted}": ${opened.missing}. ${remedies[wanted]}`);
  }
  throw new UserError(
    `No WebGPU device, ${failures.join("; ")}. Install a Vulkan driver, or the npm package @sparticuz/chromium`,
  );
}

/** The drivers that this platform may have, the preferred one first. */
export function driversHere(): readonly Driver[] {
  return process.platform === "linux" ? driverNames : driverNames.slice(0, 1);
}

/** What to do for a driver that is missing. */
export const remedies: Readonly<Record<Driver, string>> = {
  gpu: "Install the GPU's driver (Vulkan on Linux), or unset TWOBP_DRIVER to take a software driver",
  system: "On Debian or Ubuntu the software driver is the package mesa-vulkan-drivers (Mesa 24 or newer)",
  bundled: "The bundled driver needs Linux x86-64 and the npm package @sparticuz/chromium",
};

/**
 * Opens a device on one driver, or says why there is none. What the driver and its loader write on standard error is given to
 * `hear`, where that is given.
 *
 * @throws {UserError} When there is an adapter and it gives no device, or there is no place for the bundled driver.
 */
export async function tryDriver(
  webgpu: WebGpu,
  driver: Driver,
  rank: number,
  card?: string,
  hear?: (text: string) => void,
): Promise<OpenAdapter | { readonly missing: string }> {
  if (process.platform === "linux" && driver !== "bundled" && !loadLibrary("libvulkan.so.1")) {
    return { missing: "there is no Vulkan loader (libvulkan.so.1)" };
  }
  const variables: Record<string, string | undefined> = {
    // Without a runtime folder Mesa prints a warning for each instance.
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR || tmpdir(),
    // lavapipe: one core for each device. Its vectors stay as wide as it likes: it reads LP_NATIVE_VECTOR_WIDTH again at
    // the first compilation, and 512 bits, where there are any, gain 3 to 5 % and compile 2.5 times as long.
    LP_NUM_THREADS: process.env.LP_NUM_THREADS ?? "1",
  };
  const { implementation } = webgpu, own = implementation === "deno";
  // Beside a GPU's driver, lavapipe has to be singled out. Deno, which looks once, is asked for a processor instead.
  if (driver === "system" && !own && !process.env.VK_DRIVER_FILES) variables.VK_LOADER_DRIVERS_SELECT = "*lvp*";
  // Deno takes OpenGL's adapters too, of which compute shaders are a part only of some.
  if (own && process.platform === "linux") variables.DENO_WEBGPU_BACKEND = process.env.DENO_WEBGPU_BACKEND || "vulkan";
  if (card) variables.DRI_PRIME = `pci-${card.replace(/[:.]/g, "_")}`;
  let folder: string | undefined; // SwiftShader looks for its configuration in the working directory only
  if (driver === "bundled") {
    const bundled = await bundledDriver(rank);
    if (!bundled) return { missing: "it is not installed, or not for this platform" };
    variables.VK_DRIVER_FILES = bundled.icd;
    folder = bundled.folder;
  }
  // WebGPU and the drivers read all this before the calls below return; what they return is waited for without it.
  const within = <T>(call: () => T) => withEnvironment(variables, folder, call);
  const taken = webgpu.take(variables, folder, within);
  if ("missing" in taken) return taken;
  const { instance, fresh } = taken;
  const adapter = await within(() => {
    // To Dawn "fallback adapter" means SwiftShader alone.
    const forceFallbackAdapter = own && driver !== "gpu";
    const request = () => instance.requestAdapter({ powerPreference: "high-performance", forceFallbackAdapter });
    return fresh || hear ? withoutLimitWarnings(request, hear) : request();
  });
  if (!adapter) return { missing: `${own ? "Deno's WebGPU" : "Dawn"} finds no adapter that it can use` };
  if (adapter.info.isFallbackAdapter === (driver === "gpu")) {
    parkInstance(instance);
    const name = adapter.info.description || adapter.info.device;
    return { missing: `there is ${name} only, ${driver === "gpu" ? "which computes on the processor" : "a GPU"}` };
  }
  try {
    const device = await within(() =>
      adapter.requestDevice({
        label: `rank ${rank}`,
        ...usedOf(adapter),
      })
    );
    return { driver, implementation, instance, adapter, device };
  } catch (error) {
    const name = adapter.info.description || adapter.info.device;
    throw new UserError(`The driver "${driver}" has ${name}, which gives no device: ${firstLine(error)}`);
  }
}

/**
 * PCI addresses ("0000:65:00.0") of this machine's GPUs by the adapter's vendor, as Linux lists them under
 * `/sys/bus/pci/devices`; empty where that cannot be read.
 */
export function listCards(vendor: string, root = "/sys/bus/pci/devices"): string[] {
  const read = (address: string, file: string) => readFileSync(join(root, address, file), "utf8").trim();
  try {
    return readdirSync(root).sort().filter((address) =>
      read(address, "class").startsWith("0x03") && pciVendors[read(address, "vendor")] === vendor
    );
  } catch {
    return [];
  }
}
