/** One opened GPU: its queue, what it can do, its compiled kernels, and the errors it reported. */
import { reasonOf, UserError } from "../errors.ts";
import { pciVendors } from "./adapters.ts";
import type { Driver, OpenAdapter } from "./driver.ts";
import { forgetNative } from "./garbage.ts";
import type { Implementation } from "./implementation.ts";
import { parkInstance } from "./instances.ts";
import { type DeviceKind, type GpuKind, kindOf } from "./kind.ts";
import { type Kernel, source } from "./kernel.ts";
import { kernelError } from "./kernel_errors.ts";
import { memoryError } from "./memory_errors.ts";
import { polled } from "./poll.ts";

/** What ops look at to choose a kernel, and tables to name a machine. */
export interface GpuInfo extends GpuKind {
  /** Which kind of driver this is. */
  readonly driver: Driver;
  /** Whose WebGPU compiles and computes; of a dry GPU, whose it stands for. */
  readonly implementation: Implementation;
  /** The adapter's own description, "llvmpipe: Mesa 25.0.7 (LLVM 15.0.6)" or "NVIDIA H200". */
  readonly name: string;
  /** All that the adapter says of itself, hardware and driver: the same for two GPUs on which the same kernels are fastest. */
  readonly identity: string;
  /** Short name of the maker, "nvidia" or "mesa". */
  readonly vendor: string;
  /** Whether passes can be timed on the device. */
  readonly timestamps: boolean;
  /** Whether shaders may use 16-bit floats. */
  readonly f16: boolean;
  /** Whether subgroups can multiply 16 x 16 matrices of f16 into f32. */
  readonly matrixUnits: boolean;
  /** Whether nothing is computed and no memory taken: shapes and accounts only, see `dryDevices`. */
  readonly dry: boolean;
}

/** What Dawn says of matrix units; no part of WebGPU yet. */
interface MatrixInfo extends GPUAdapterInfo {
  readonly subgroupMatrixConfigs?: readonly {
    readonly M: number;
    readonly N: number;
    readonly K: number;
    readonly componentType: string;
    readonly resultComponentType: string;
  }[];
}

/** Makers by the numbers that Vulkan has for them: what Deno gives for a name. */
const makers: Readonly<Record<string, string>> = {
  ...Object.fromEntries(Object.entries(pciVendors).map(([number, maker]) => [`${Number(number)}`, maker])),
  ...{ "65541": "mesa", "6880": "google" },
};

/** A compiled kernel, and when it was used last: counted in calls of {@link Gpu.trimPipelines}. */
interface Compiled {
  readonly pipeline: GPUComputePipeline;
  used: number;
}

/**
 * Compiled kernels that all GPUs of the process together keep for the next model, and the least that each may keep: about
 * what a model needs. Dawn makes room for bind groups by the hundred for each layout, and each takes lavapipe a memory
 * mapping, of which a process has 65,530.
 */
const [keptByAll, keptByEach] = [256, 48];
/** Memory mappings that lavapipe gives back with a compiled kernel. */
const mappingsOfPipeline = 128;
/** Open GPUs of the process, dry ones left out. */
let open = 0;
/** How long a rejected promise waits for the loss of the device that is perhaps behind it. */
const lossDelayMs = 50;

/** A GPU device of WebGPU with the caches that belong to it. */
export class Gpu {
  /** What it is and can do. */
  readonly info: GpuInfo;
  /** The most workgroups of a dispatch along an axis: WebGPU's default, which nobody asks to have raised. */
  readonly mostWorkgroups: number;
  /** Kept referenced: once Dawn's instance is collected, no promise of its devices settles any more. */
  readonly #instance: GPU;
  readonly #pipelines = new Map<string, Compiled>();
  /** Of each of these pipelines: what an error, which may come before there is one, is about. */
  readonly #kernels = new Map<string, Kernel>();
  #time = 0;
  #device: GPUDevice | undefined;
  #queue: GPUQueue | undefined;
  #error: string | undefined;
  /** Whether that is about memory. */
  #isFull = false;
  #full: string | undefined;
  #lost: string | undefined;
  #isDestroyed: Promise<unknown>;

  /** Takes over an opened adapter; `openDevices` makes these. A dry one is told which kind it stands for. */
  constructor(opened: OpenAdapter, standsFor?: DeviceKind) {
    const { driver, implementation, instance, adapter, device } = opened;
    const info = adapter.info, own = implementation === "deno";
    const vendor = makers[info.vendor] ?? info.vendor, dry = standsFor !== undefined;
    const identity = [vendor, info.architecture, info.device, info.description, own && "in Deno's WebGPU"]
      .filter(Boolean).join(" ");
    this.#instance = instance;
    this.#device = device;
    if (!dry) open++;
    this.#queue = device.queue;
    this.mostWorkgroups = device.limits.maxComputeWorkgroupsPerDimension ?? 65_535;
    this.info = {
      driver,
      kind: standsFor ?? kindOf(identity, info.isFallbackAdapter),
      implementation,
      name: info.description || info.device || info.vendor,
      identity,
      vendor,
      software: info.isFallbackAdapter,
      subgroupSize: device.features.has("subgroups") && info.subgroupMinSize === info.subgroupMaxSize
        ? info.subgroupMinSize ?? 0
        : 0,
      // Deno hands on ticks of the device's clock and does not say how long one is: of a software driver's, a nanosecond.
      timestamps: device.features.has("timestamp-query") && (!own || info.isFallbackAdapter),
      f16: device.features.has("shader-f16"),
      matrixUnits: device.features.has("chromium-experimental-subgroup-matrix" as GPUFeatureName) &&
        ((info as MatrixInfo).subgroupMatrixConfigs ?? []).some((each) =>
          each.M === 16 && each.N === 16 && each.K === 16 && each.componentType === "f16" &&
          each.resultComponentType === "f32"
        ),
      dry,
    };
    device.addEventListener("uncapturederror", this.#listen);
    this.#isDestroyed = device.lost.then(({ reason, message }) => {
      if (!this.closed) this.#lost ??= `device lost (${reason}): ${message.trim() || "the driver gives no reason"}`;
    });
  }

  // An uncaptured error drops its submission without a word, and what is read later is zeros: keep the first one
  // and throw it at the next wait.
  readonly #listen = (event: Event) => {
    const { error } = event as GPUUncapturedErrorEvent;
    const kind = error.constructor.name.replace(/^GPU|Error$/g, "");
    if (kind === "OutOfMemory") {
      // What else is reported follows from it, and may come first: whatever uses the buffer is invalid.
      if (!this.#isFull) this.#error = this.#full = memoryError(reasonOf(error));
      this.#isFull = true;
    } else this.#error ??= `${kind} error: ${kernelError(reasonOf(error), (id) => this.#kernels.get(id))}`;
    event.preventDefault(); // or Dawn prints it
  };

  /** Whether {@link Gpu.close} has been called. */
  get closed(): boolean {
    return this.#device === undefined;
  }

  /**
   * Why the device is lost, "device lost (destroyed): device was destroyed" for example; `undefined` as long as it is not. A
   * lost device stays lost: nothing on it runs any more, and what it held is gone.
   */
  get lost(): string | undefined {
    return this.#lost;
  }

  /** WebGPU's device. Throws a {@link UserError} after {@link Gpu.close}. */
  get device(): GPUDevice {
    return this.#device ?? this.#refuse();
  }

  /** Its one queue. Throws a {@link UserError} after {@link Gpu.close}. */
  get queue(): GPUQueue {
    return this.#queue ?? this.#refuse();
  }

  #refuse(): never {
    throw new UserError("The devices are closed; open others with openDevices()");
  }

  /** The first error since the last call, or undefined; that the device is lost is said each time. */
  takeError(): string | undefined {
    const error = this.#error ?? this.#lost;
    this.#error = undefined;
    this.#isFull = false;
    return error;
  }

  /**
   * The last lack of memory, also where another rank on this GPU has been told of it already: why a buffer cannot be mapped.
   * {@link Gpu.forget} ends it.
   */
  get full(): string | undefined {
    return this.#full;
  }

  /** Forgets the errors that have been reported, but not a loss. */
  forget(): void {
    this.takeError();
    this.#full = undefined;
  }

  /** Waits until a loss of the device that is being reported is known, but not long: there may be none. */
  async settleLoss(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await Promise.race([
      this.#isDestroyed,
      new Promise<void>((resolve) => void (timer = setTimeout(resolve, lossDelayMs))),
    ]);
    clearTimeout(timer);
  }

  /**
   * The compiled pipeline of a kernel, `halves` as in `source`; compiled at first use (20 to 1,200 ms on a software driver).
   */
  pipeline(kernel: Kernel, halves = 0): GPUComputePipeline {
    const id = halves ? `${kernel.id}:f16 ${halves}` : kernel.id;
    let compiled = this.#pipelines.get(id);
    if (!compiled) {
      this.#kernels.set(id, kernel);
      const module = this.device.createShaderModule({ label: id, code: source(kernel, halves) });
      const pipeline = this.device.createComputePipeline({
        label: id,
        layout: "auto",
        compute: { module, entryPoint: kernel.entry },
      });
      this.#pipelines.set(id, compiled = { pipeline, used: 0 });
    }
    compiled.used = this.#time;
    return compiled.pipeline;
  }

  /** Forgets the compiled kernels that have not been used for longest, if there are many: some are made for one shape. */
  trimPipelines(): void {
    this.#time++;
    const surplus = this.#pipelines.size - Math.max(keptByEach, Math.floor(keptByAll / open));
    if (surplus <= 0 || this.info.dry) return;
    const oldest = [...this.#pipelines].sort(([, a], [, b]) => a.used - b.used).slice(0, surplus);
    for (const [id] of oldest) {
      this.#pipelines.delete(id);
      this.#kernels.delete(id);
    }
    forgetNative(surplus * mappingsOfPipeline);
  }

  /**
   * Does `work`, calls of WebGPU, and tells what WebGPU holds against these calls alone; undefined where they are good.
   * Errors of others go their usual way.
   */
  async attempt(work: () => void): Promise<string | undefined> {
    const filters: readonly GPUErrorFilter[] = ["validation", "out-of-memory", "internal"];
    for (const filter of filters) this.device.pushErrorScope(filter);
    let told: Promise<(GPUError | null)[]>;
    try {
      work();
    } finally {
      told = Promise.all(filters.map(() => this.device.popErrorScope()));
      told.catch(() => {}); // where the work throws, or the device is lost, nobody may come to wait for it
    }
    const error = (await this.wait(told)).find((each) => each);
    return error?.message;
  }

  /**
   * Waits for a promise of this GPU's. One that is waited for again and again has a name in a routine, which stands for what
   * repeats itself: then it is known when the wait will end, and little is polled before.
   */
  wait<T>(promise: Promise<T>, routine?: object, name?: string): Promise<T> {
    return polled(promise, routine, name);
  }

  /** Frees everything on the GPU; a second time does nothing. With all GPUs closed, a process ends by itself. */
  close(): void {
    const device = this.#device;
    if (!device) return;
    this.#device = this.#queue = undefined;
    if (!this.info.dry) open--;
    device.removeEventListener("uncapturederror", this.#listen);
    device.destroy();
    this.#pipelines.clear();
    this.#kernels.clear();
    if (!this.#lost) parkInstance(this.#instance); // who knows what a lost device has left behind in its driver
  }
}
