/** What doctor finds out about a machine, as data. */
import type { FoundDriver } from "../../gpu/survey.ts";
import type { Mode } from "../../gpu/devices.ts";
import type { Driver } from "../../gpu/driver.ts";
import type { Implementation } from "../../gpu/implementation.ts";
import type { Peak } from "../peak.ts";

/** How much is looked at: `quick` leaves kernels and rates out, `usual` stops with the kernels after a while, `all` does not. */
export type Depth = "quick" | "usual" | "all";

/** All depths. */
export const depths: readonly Depth[] = ["quick", "usual", "all"];

/** A runtime on this machine. */
export interface FoundRuntime {
  /** "Deno", "Node" or "Bun". */
  readonly name: string;
  /** Undefined where there is none, or it does not say. */
  readonly version?: string;
  /** Whether it runs this. */
  readonly here: boolean;
}

/** What there is besides devices. */
export interface Surroundings {
  /** Deno, Node and Bun. */
  readonly runtimes: readonly FoundRuntime[];
  /** Packages that cannot be found, and what needs them. */
  readonly missingPackages: readonly { readonly name: string; readonly use: string }[];
  /** Variables of the environment that decide about drivers, as far as they are set. */
  readonly environment: Readonly<Record<string, string>>;
  /** Cores that this process may use. */
  readonly cores: number;
  /** Processes that want to run, on average over the last minute; 0 where the system does not say. */
  readonly load: number;
  /** Bytes of memory, and those that nobody uses. */
  readonly memory: { readonly total: number; readonly free: number };
  /** The user's cache: its folder, or why there is none. */
  readonly cache: { readonly folder?: string; readonly problem?: string };
  /** GPUs by maker as the PCI bus has them, whether they have a driver or not. */
  readonly cards: Readonly<Record<string, readonly string[]>>;
}

/** An operation whose result the host has computed too. */
export interface ValueCheck {
  /** What was computed. */
  readonly what: string;
  /** Element type of tensors. */
  readonly dtype: "f32" | "f16";
  /** What is wrong with it; undefined where it is right. */
  readonly problem?: string;
}

/** A kernel that fails or gives something else than its reference. */
export interface KernelFault {
  /** Name of the operation. */
  readonly operation: string;
  /** Class of the problem. */
  readonly problemClass: string;
  /** Element type of the result. */
  readonly dtype: string;
  /** Name of the candidate. */
  readonly candidate: string;
  /** Whether nothing else can compute the problem, or everything else was compared with it. */
  readonly reference: boolean;
  /** Whether a run takes it without calibration. */
  readonly usual: boolean;
  /** What is wrong. */
  readonly problem: string;
}

/** What came of running the kernels. */
export interface KernelsCheck {
  /** Problems, in all element types. */
  readonly problems: number;
  /** Candidates that were compiled and run, one for each problem. */
  readonly checked: number;
  /** Candidates for which there was no time. */
  readonly left: number;
  /** Those that are wrong. */
  readonly faults: readonly KernelFault[];
  /** How long it took. */
  readonly ms: number;
}

/** What a device does at best, and what a product of matrices comes to. */
export interface Rates extends Peak {
  /** Rows and columns of the matrices. */
  readonly side: number;
  /** 10^9 floating-point operations a second of the product in f32, by the usual candidate. */
  readonly product: number;
  /** The same in f16, where there is any. */
  readonly halfProduct?: number;
}

/** Times of what passes between host and devices, medians in milliseconds. */
export interface PassingTimes {
  /** Bytes of the large transfers. */
  readonly bytes: number;
  /** From the host to a device, until it is there. */
  readonly toDevice: number;
  /** From a device to the host. */
  readonly toHost: number;
  /** From a device through the host to the next, as a message goes. */
  readonly message: number;
  /** Bytes of the small message. */
  readonly smallBytes: number;
  /** The same for a small message: what a message costs at least. */
  readonly smallMessage: number;
}

/** Training steps of a small model through a pipeline of two ranks. */
export interface StepCheck {
  /** Name of the model. */
  readonly model: string;
  /** Name of the schedule. */
  readonly schedule: string;
  /** Losses of the steps, on the same batch. */
  readonly losses: readonly number[];
  /** Milliseconds of the fastest step. */
  readonly ms: number;
  /** Losses of the same steps in mixed precision, where the device has f16. */
  readonly mixedLosses?: readonly number[];
  /** What is wrong with them; undefined where they are right. */
  readonly problem?: string;
  /** What is wrong in mixed precision alone. */
  readonly mixedProblem?: string;
}

/** The devices that all this was tried on. */
export interface TriedDevices {
  /** Which driver serves them. */
  readonly driver: Driver;
  /** Whose WebGPU compiles their kernels. */
  readonly implementation: Implementation;
  /** Its version, or "none" where that is not known. */
  readonly version: string;
  /** The driver's description. */
  readonly adapter: string;
  /** Whether they are two. */
  readonly mode: Mode;
  /** Why not, if so. */
  readonly notice?: string;
  /** Whether they compute on the processor. */
  readonly software: boolean;
  /** Whether there are 16-bit floats. */
  readonly f16: boolean;
  /** Whether passes can be timed. */
  readonly timestamps: boolean;
  /** Lanes in a subgroup, 0 where kernels cannot count on a number. */
  readonly subgroupSize: number;
}

/** Something that a user should know of. */
export interface Finding {
  /** `fault`: something does not work; `missing`: something cannot be used here; `slow`: it works, and could be faster. */
  readonly kind: "fault" | "missing" | "slow";
  /** What was found. */
  readonly what: string;
  /** What to do about it. */
  readonly remedy: string;
}

/** What doctor found. */
export interface Diagnosis {
  /** Version of this form. */
  readonly schema: 1;
  /** Whether a training step of a pipeline runs here and is right. */
  readonly works: boolean;
  /** How much was looked at. */
  readonly depth: Depth;
  /** What there is besides devices. */
  readonly surroundings: Surroundings;
  /** Each driver of this platform. */
  readonly drivers: readonly FoundDriver[];
  /** The devices that the rest was found out on, where some could be opened. */
  readonly devices?: TriedDevices;
  /** Why there are none, or why they failed in the middle. */
  readonly problem?: string;
  /** Numbers compared with those of the host. */
  readonly values?: readonly ValueCheck[];
  /** Training steps. */
  readonly step?: StepCheck;
  /** What could not be measured, and why: of what follows. */
  readonly failures?: readonly { readonly what: string; readonly problem: string }[];
  /** How long two devices take at once, as a share of one after the other; of two devices only. */
  readonly together?: number;
  /** What passes between them. */
  readonly passing?: PassingTimes;
  /** Rates; not in a quick diagnosis. */
  readonly rates?: Rates;
  /** Kernels; not in a quick diagnosis. */
  readonly kernels?: KernelsCheck;
  /** What follows from all that, what does not work first. */
  readonly findings: readonly Finding[];
  /** How long it took. */
  readonly ms: number;
}
