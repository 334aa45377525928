/** What follows from what doctor found: what does not work, what is missing, what is slow, and what to do about each. */
import { formatBytes } from "../../bytes.ts";
import { threshold } from "../../gpu/separate.ts";
import type { Diagnosis, Finding, KernelFault } from "./diagnosis.ts";

/** All that was found, but for what follows from it. */
export type Facts = Omit<Diagnosis, "findings" | "works" | "ms" | "schema">;

/** Why a driver is not there that was not even tried. */
export const crash = "it has crashed the process that tried it";

type Rule = (facts: Facts) => Finding | undefined | false | readonly (Finding | undefined | false)[];

const fault = (what: string, remedy: string): Finding => ({ kind: "fault", what, remedy });
const missing = (what: string, remedy: string): Finding => ({ kind: "missing", what, remedy });
const slow = (what: string, remedy: string): Finding => ({ kind: "slow", what, remedy });

/** The oldest versions that this is tried with. */
const oldest: Readonly<Record<string, number>> = { Deno: 2, Node: 20, Bun: 1 };
/** Below these, work is waited for that is not the step's. */
const leastMemory = 2 ** 30, leastShare = 0.05;
/** A broken driver has hundreds of lines to say. */
const mostKernels = 8;
const otherDriver = "Take another one: TWOBP_DRIVER=gpu, system or bundled; or update it.";

const rules: readonly Rule[] = [
  ({ surroundings: { runtimes } }) => {
    const { name, version = "" } = runtimes.find(({ here }) => here)!;
    return parseInt(version) < oldest[name] && fault(
      `${name} ${version} is too old.`,
      `Install ${name} ${oldest[name]} or newer.`,
    );
  },
  ({ problem, drivers, surroundings: { environment, missingPackages } }) => {
    if (problem === undefined || missingPackages.some(({ name }) => name === "webgpu")) return undefined;
    const forced = environment.TWOBP_DRIVER, others = drivers.filter(({ adapter }) => adapter);
    const remedies = drivers.flatMap(({ driver, remedy }) => driver !== "gpu" && remedy ? [`${remedy}.`] : []);
    return fault(
      `Devices cannot be used: ${problem}.`,
      forced && others.length > 0
        ? `Unset TWOBP_DRIVER (it is "${forced}"), or set it to ${others.map(({ driver }) => driver).join(" or ")}.`
        : remedies.join(" ") || otherDriver,
    );
  },
  ({ drivers }) =>
    drivers.filter(({ missing }) => missing === crash).map(({ driver }) =>
      fault(
        `The driver "${driver}" crashes.`,
        "Update it or take it away; until then TWOBP_DRIVER set to one that works keeps away from it.",
      )
    ),
  ({ drivers, surroundings: { environment } }) => {
    const paths = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].filter((name) => environment[name]);
    const isLost = drivers.every(({ driver, adapter }) => !adapter || driver === "bundled");
    return isLost && paths.map((name) =>
      missing(
        `${name} is ${environment[name]}: drivers are looked for there alone, and none is found.`,
        `Unset ${name}, or have it name the driver's JSON file.`,
      )
    );
  },
  ({ drivers, surroundings: { cards } }) => {
    const vendors = Object.keys(cards).filter((vendor) => !drivers.some(({ adapter }) => adapter?.vendor === vendor));
    return vendors.map((vendor) =>
      missing(
        `There is a GPU of ${vendor} at ${cards[vendor].join(", ")}, and no Vulkan driver of it is found.`,
        vendor === "nvidia"
          ? "Install NVIDIA's driver with its Vulkan part; a container needs NVIDIA_DRIVER_CAPABILITIES=all and libvulkan1."
          : "Install Mesa's Vulkan drivers (mesa-vulkan-drivers) and libvulkan1; a container needs /dev/dri.",
      )
    );
  },
  ({ values = [], devices }) => {
    const bad = values.filter(({ problem }) => problem);
    return (["f32", "f16"] as const).map((dtype) => {
      const found = bad.filter((each) => each.dtype === dtype);
      return found.length > 0 && fault(
        `${devices?.adapter} computes wrongly in ${dtype}: ${
          found.map((each) => `${each.what}: ${each.problem}`).join("; ")
        }.`,
        dtype === "f16" ? `Do not train with --precision mixed here. ${otherDriver}` : otherDriver,
      );
    });
  },
  ({ step }) => [
    step?.problem !== undefined && fault(`A training step is wrong: ${step.problem}.`, otherDriver),
    step?.mixedProblem !== undefined && fault(
      `A training step in mixed precision is wrong: ${step.mixedProblem}.`,
      "Train in f32 here; or take another driver.",
    ),
  ],
  ({ kernels }) => {
    const byKernel = new Map<string, KernelFault[]>();
    for (const each of kernels?.faults ?? []) {
      const name = `${each.candidate} of ${each.operation}`;
      byKernel.set(name, [...byKernel.get(name) ?? [], each]);
    }
    const told = [...byKernel].slice(0, mostKernels).map(([name, [first, ...more]]) => {
      const { operation, problemClass, usual, reference, problem } = first;
      const others = more.length > 0 ? ` and ${more.length} more` : "";
      return fault(
        `Kernel ${name} (${problemClass}${others}) fails: ${problem}.`,
        usual
          ? `Every run that has ${operation} takes it: ${otherDriver.replace("Take", "take")}`
          : reference
          ? `The other kernels of ${operation} are compared with it, and are not known to be right. ${otherDriver}`
          : "Runs do not take it unless it is forced, and --calibrate drops it: there is nothing to do.",
      );
    });
    const rest = byKernel.size - told.length;
    return [...told, rest > 0 && fault(`${rest} more kernels fail.`, "--json FILE writes all of them.")];
  },
  ({ failures = [] }) =>
    failures.map(({ what, problem }) => fault(`${what} could not be measured: ${problem}.`, otherDriver)),
  ({ surroundings: { cache } }) =>
    cache.problem !== undefined && missing(
      `There is no cache: ${cache.problem}.`,
      "Without one the bundled driver cannot be unpacked, and --calibrate measures anew each time.",
    ),
  ({ surroundings: { missingPackages } }) => {
    if (missingPackages.length === 0) return undefined;
    const kind = missingPackages.some(({ name }) => name === "webgpu") ? fault : missing;
    const names = missingPackages.map(({ name }) => name).join(" ");
    return kind(
      `Packages cannot be found: ${missingPackages.map(({ name, use }) => `${name} (${use})`).join(", ")}.`,
      `Install those that you need: npm install ${names}; in a checkout, deno task setup.`,
    );
  },
  ({ devices }) =>
    devices && [
      !devices.f16 && missing(
        `${devices.adapter} has no 16-bit floats: --precision mixed is refused.`,
        devices.driver === "bundled" ? "The system's driver has them (mesa-vulkan-drivers)." : "Train in f32.",
      ),
      !devices.timestamps && missing(
        `${devices.adapter} has no timestamps: virtual devices cannot be measured, and gains are not taken apart.`,
        "Measure on real devices; training is not affected.",
      ),
      devices.subgroupSize === 0 && missing(
        devices.implementation === "deno"
          ? "Deno's WebGPU, whose compiler is naga, has no subgroups: kernels that use them are left out."
          : `${devices.adapter} has no subgroups of a fixed size: kernels that use them are left out.`,
        devices.implementation === "deno"
          ? "Dawn has them where the driver does: unset TWOBP_WEBGPU. Products of matrices may be slower without."
          : "There is nothing to do; products of matrices may be slower for it.",
      ),
      devices.notice !== undefined && missing(
        `${devices.notice}: steps are composed of measured times, and nothing runs at once.`,
        devices.implementation === "deno"
          ? "Dawn gives each rank a device of its own: unset TWOBP_WEBGPU."
          : devices.software
          ? "Give the process at least as many cores as ranks."
          : "Add a GPU for each rank.",
      ),
    ],
  ({ devices, drivers }) => {
    if (!devices?.software) return undefined;
    const hasSystem = drivers.some(({ driver, adapter }) => driver === "system" && adapter);
    return devices.driver === "bundled"
      ? slow(
        "The bundled driver is in use, several times as slow as the system's.",
        hasSystem
          ? "The system's is there: unset TWOBP_DRIVER."
          : "Install the system's: on Debian or Ubuntu mesa-vulkan-drivers (Mesa 24 or newer).",
      )
      : slow(
        "Devices are computed on the processor, a core each.",
        "For models of a real size take a machine with GPUs.",
      );
  },
  ({ devices }) =>
    devices?.implementation === "deno" && slow(
      "Deno's WebGPU looks every 10 ms whether work has ended: each wait takes up to that longer, and holds the program up.",
      "Unset TWOBP_WEBGPU to train or to measure; Dawn is asked more often.",
    ),
  ({ devices, surroundings: { environment } }) => {
    const threads = environment.LP_NUM_THREADS;
    return devices?.driver === "system" && threads !== undefined && threads !== "1" && slow(
      `LP_NUM_THREADS is ${threads}: each device takes that many cores, and two stand in each other's way.`,
      "Unset it: a core a device is the default here.",
    );
  },
  ({ together }) =>
    together !== undefined && together > threshold && slow(
      `Two devices at once take ${together.toFixed(2)} of the time of one after the other, 0.5 at best.`,
      "They share their hardware, or other programs keep it busy: run this again on an idle machine.",
    ),
  ({ surroundings: { load, cores } }) =>
    load > cores && slow(
      `The machine is busy: ${load.toFixed(1)} processes want ${cores} core${cores === 1 ? "" : "s"}.`,
      "Times measured now are longer than they need be; measure on an idle machine.",
    ),
  ({ surroundings: { memory } }) =>
    memory.free < leastMemory && slow(
      `Only ${formatBytes(memory.free)} of ${formatBytes(memory.total)} of memory are free.`,
      "End other programs before training anything large.",
    ),
  ({ rates }) =>
    rates && [
      rates.product < leastShare * rates.gflops && slow(
        `Products of matrices reach ${
          (100 * rates.product / rates.gflops).toFixed(0)
        } % of what the device computes in registers.`,
        "Benches and calibrate() can measure which kernels are fastest here: add --calibrate.",
      ),
      rates.halfProduct !== undefined && rates.halfProduct < 0.7 * rates.product && slow(
        `Products in f16 are ${(rates.product / rates.halfProduct).toFixed(1)} times as slow as in f32.`,
        "--precision mixed saves memory here, and no time.",
      ),
    ],
];

/** What follows from the facts: faults first, then what is missing, then what is slow. */
export function findingsOf(facts: Facts): Finding[] {
  const found = rules.flatMap((rule) => rule(facts)).filter((each) => typeof each === "object");
  return (["fault", "missing", "slow"] as const).flatMap((kind) => found.filter((each) => each.kind === kind));
}

/** Whether the main job works: two devices, numbers that are right in f32, and steps that are. */
export function worksAt({ devices, problem, values, step, kernels }: Facts): boolean {
  const right = values?.every((each) => each.dtype === "f16" || each.problem === undefined) ?? false;
  const taken = kernels?.faults.some(({ usual, reference, dtype }) => (usual || reference) && dtype !== "f16") ?? false;
  return devices !== undefined && problem === undefined && right && step !== undefined && step.problem === undefined &&
    !taken;
}
