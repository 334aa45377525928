/** One opened GPU: its queue, what it can do, its compiled kernels, and the errors it reported. */
import type { Driver, OpenAdapter } from "./driver.ts";
import { type Kernel, source } from "./kernel.ts";
import { polled, type WaitHistory } from "./poll.ts";

/** What ops look at to choose a kernel, and tables to name a machine. */
export interface GpuInfo {
  /** Which kind of driver this is. */
  readonly driver: Driver;
  /** The adapter's own description, "llvmpipe: Mesa 25.0.7 (LLVM 15.0.6)" or "NVIDIA H200". */
  readonly name: string;
  /** All that the adapter says of itself, hardware and driver: the same for two GPUs on which the same kernels are fastest. */
  readonly identity: string;
  /** Short name of the maker, "nvidia" or "mesa". */
  readonly vendor: string;
  /** Whether the "GPU" is a processor: barriers and workgroup memory are dear there, registers cheap. */
  readonly software: boolean;
  /** Lanes in a subgroup, or 0 where subgroups are missing or their size varies. */
  readonly subgroupSize: number;
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

/** A GPU device of WebGPU with the caches that belong to it. */
export class Gpu {
  /** What it is and can do. */
  readonly info: GpuInfo;
  /** WebGPU's device. */
  readonly device: GPUDevice;
  /** Its one queue. */
  readonly queue: GPUQueue;
  /** Never read, and needed: once Dawn's instance is collected, no promise of its devices settles any more. */
  readonly instance: GPU;
  readonly #pipelines = new Map<string, GPUComputePipeline>();
  readonly #uniforms = new Map<string, GPUBuffer>();
  #error: string | undefined;
  #lost: string | undefined;
  #closed = false;

  /** Takes over an opened adapter; `openDevices` makes these. */
  constructor(opened: OpenAdapter, dry = false) {
    const { driver, instance, adapter, device } = opened;
    const info = adapter.info;
    this.instance = instance;
    this.device = device;
    this.queue = device.queue;
    this.info = {
      driver,
      name: info.description || info.device || info.vendor,
      identity: [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(" "),
      vendor: info.vendor,
      software: info.isFallbackAdapter,
      subgroupSize: device.features.has("subgroups") && info.subgroupMinSize === info.subgroupMaxSize
        ? info.subgroupMinSize ?? 0
        : 0,
      timestamps: device.features.has("timestamp-query"),
      f16: device.features.has("shader-f16"),
      matrixUnits: device.features.has("chromium-experimental-subgroup-matrix" as GPUFeatureName) &&
        ((info as MatrixInfo).subgroupMatrixConfigs ?? []).some((each) =>
          each.M === 16 && each.N === 16 && each.K === 16 && each.componentType === "f16" &&
          each.resultComponentType === "f32"
        ),
      dry,
    };
    // An uncaptured error drops its submission without a word, and what is read later is zeros: keep the first one
    // and throw it at the next wait.
    device.addEventListener("uncapturederror", (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      this.#error ??= `${error.constructor.name.replace(/^GPU|Error$/g, "")} error: ${error.message}`;
    });
    device.lost.then((lost) => {
      if (!this.#closed) this.#lost ??= `device lost (${lost.reason})${lost.message ? `: ${lost.message}` : ""}`;
    });
  }

  /** Why the device is lost, if it is: nothing runs on it any more. */
  get lost(): string | undefined {
    return this.#lost;
  }

  /** The first error since the last call, or undefined; that the device is lost is told each time. */
  takeError(): string | undefined {
    const error = this.#lost ?? this.#error;
    this.#error = undefined;
    return error;
  }

  /**
   * The compiled pipeline of a kernel, `halves` as in `source`; compiled at first use (20 to 1,200 ms on a software driver).
   */
  pipeline(kernel: Kernel, halves = 0): GPUComputePipeline {
    const id = halves ? `${kernel.id}:f16 ${halves}` : kernel.id;
    let pipeline = this.#pipelines.get(id);
    if (!pipeline) {
      const module = this.device.createShaderModule({ label: id, code: source(kernel, halves) });
      pipeline = this.device.createComputePipeline({
        label: id,
        layout: "auto",
        compute: { module, entryPoint: kernel.entry },
      });
      this.#pipelines.set(id, pipeline);
    }
    return pipeline;
  }

  /** A uniform buffer with these 32-bit words. Equal blocks share one buffer, so a steady step makes none. */
  uniform(key: string, words: readonly number[]): GPUBuffer {
    let buffer = this.#uniforms.get(key);
    if (!buffer) {
      const size = Math.max(16, Math.ceil(words.length / 4) * 16);
      buffer = this.device.createBuffer({ size, usage: GPUBufferUsage.UNIFORM, mappedAtCreation: true });
      new Uint32Array(buffer.getMappedRange()).set(words);
      buffer.unmap();
      this.#uniforms.set(key, buffer);
    }
    return buffer;
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
    }
    const error = (await this.wait(told)).find((each) => each);
    return error?.message;
  }

  /** Waits for a promise of this GPU's; one that is waited for in every step brings its history. */
  wait<T>(promise: Promise<T>, history?: WaitHistory): Promise<T> {
    return polled(promise, history);
  }

  /** Frees everything on the GPU. With all GPUs closed, a process ends by itself. */
  close(): void {
    this.#closed = true;
    this.device.destroy();
    this.#pipelines.clear();
    this.#uniforms.clear();
  }
}

/** The bits of a 32-bit float, for a uniform block given as words. */
export function floatBits(value: number): number {
  floatView[0] = value;
  return wordView[0];
}
const floatView = new Float32Array(1);
const wordView = new Uint32Array(floatView.buffer);
