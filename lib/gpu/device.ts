/** A pipeline rank's device: memory with an account, recorded kernels, submissions, reads and writes. */
import { reasonOf, UserError } from "../errors.ts";
import { type BindGroups, createBindGroups } from "./bind_groups.ts";
import type { Category } from "../memory.ts";
import { DeviceError } from "./device_error.ts";
import { forgetNative } from "./garbage.ts";
import type { Gpu } from "./gpu.ts";
import type { DType, Kernel } from "./kernel.ts";
import { createLedger, type Ledger } from "./ledger.ts";
import type { ParameterValues } from "./parameters.ts";
import { yieldCore } from "./poll.ts";
import { createPool, type Pool, type Storage } from "./pool.ts";
import { createUniforms, type Uniforms } from "./uniforms.ts";

/** A stretch of a buffer, as a kernel is given it. */
export interface View {
  /** The buffer. */
  readonly storage: Storage;
  /** Bytes from the start of the storage, a multiple of 256 (`alignment`). */
  readonly offset: number;
  /** Length in bytes. */
  readonly bytes: number;
  /** What it holds: a kernel is compiled for the element types it is given. f32 by default. */
  readonly dtype?: DType;
}

/** Reads up to this length use staging buffers that are kept: losses, and what ranks see of their gradients. */
const smallRead = 65_536;

/** Where a pass writes its start and end time: two neighbouring slots of a query set. */
export interface TimestampSlot {
  /** A set of timestamp queries. */
  readonly querySet: GPUQuerySet;
  /** Slot of the start; that of the end follows. */
  readonly index: number;
}

/**
 * One rank's device. Several ranks may share one {@link Gpu} (virtual devices); memory is accounted by rank all the same.
 *
 * Work is recorded by {@link Device.dispatch} and {@link Device.copy} and runs when {@link Device.submit} is called.
 * Recording never waits; only {@link Device.read} and {@link Device.idle} do.
 */
export class Device {
  /** Position in the pipeline. */
  readonly rank: number;
  /** What runs the work; shared among virtual devices. */
  readonly gpu: Gpu;
  /** Bytes in use, by category. */
  readonly ledger: Ledger;
  /**
   * Where buffers come from and go back to.
   *
   * @internal
   */
  readonly pool: Pool;
  /** Whose device it is, in messages: a step says so where there are several replicas. */
  place: string;
  /** What the device is used for just now, an action as in "0F3": errors about its buffers name it, however late they come. */
  activity = "set-up";
  /**
   * What repeats itself on the device, and perhaps on others: the program of a schedule in its steps. Waits of one name that are
   * made in it again and again take about as long each time, and are polled for accordingly.
   */
  routine: object = this;
  readonly #bindGroups: BindGroups;
  readonly #uniforms: Uniforms;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  /** Recordings that have been finished and not been submitted yet. */
  readonly #finished = new Set<GPUCommandBuffer>();
  /** Those of them whose memory is held: they need nothing but their uniform blocks. */
  readonly #aside = new Set<GPUCommandBuffer>();

  /** Free buffers for small reads, which a step has some of. */
  readonly #staging: GPUBuffer[] = [];
  /** Buffers of reads that are recorded and that nobody waits for yet. */
  readonly #started = new Set<GPUBuffer>();

  /** The device of `rank` on `gpu`; `openDevices` makes these. */
  constructor(rank: number, gpu: Gpu) {
    this.rank = rank;
    this.place = `Rank ${rank}`;
    this.gpu = gpu;
    this.ledger = createLedger();
    this.#bindGroups = createBindGroups(gpu.info.dry ? () => {} : forgetNative);
    this.#uniforms = createUniforms(gpu.device, (bytes) => this.labelOf(bytes, "workspace"));
    // Bind groups hold on to their buffers.
    this.pool = createPool(gpu.device, this.ledger, {
      fail: (message) => this.#fail(message),
      isRecording: () => this.#isRecording(),
      onDestroy: () => this.#bindGroups.clear(),
      label: (bytes, category) => this.labelOf(bytes, category),
    });
  }

  /**
   * Storage of at least `bytes` bytes; its content is whatever was there before.
   *
   * @throws {UserError} When the devices are closed, as every method here that uses them.
   */
  allocate(bytes: number, category: Category): Storage {
    this.#expectOpen("allocate");
    return this.pool.allocate(bytes, category);
  }

  /** Name of a buffer of this rank: where there is no memory for it, `memoryError()` reads it. */
  labelOf(bytes: number, category: Category): string {
    return `rank ${this.rank}, ${this.activity}: ${bytes} bytes of ${category}`;
  }

  /** Opens a compute pass, which kernels are recorded into until the next copy or submission; may be left out. */
  beginPass(timestamps?: TimestampSlot): void {
    this.#expectOpen("beginPass");
    this.#pass?.end();
    this.#encoder ??= this.gpu.device.createCommandEncoder();
    this.#pass = this.#encoder.beginComputePass(
      timestamps && {
        timestampWrites: {
          querySet: timestamps.querySet,
          beginningOfPassWriteIndex: timestamps.index,
          endOfPassWriteIndex: timestamps.index + 1,
        },
      },
    );
  }

  /**
   * Records one kernel. `parameters` are the fields of its `struct Parameters` by name, or undefined for a kernel without
   * one; `views` are its storage buffers in the order of their bindings.
   *
   * ```ts ignore
   * device.dispatch(kernel("elementwise", "fill"), { count: 1000, value: 0.5 }, [view], [16]);
   * ```
   *
   * @throws {UserError} Where a parameter is missing, unknown, or has a value that its type cannot hold.
   */
  dispatch(
    kernel: Kernel,
    parameters: ParameterValues | undefined,
    views: readonly View[],
    workgroups: readonly [number, number?, number?],
  ): void {
    this.#expectOpen("dispatch");
    if (!this.#pass) this.beginPass();
    const pass = this.#pass!;
    let halves = 0;
    const first = parameters ? 1 : 0; // binding of the first view
    for (let i = 0; i < views.length; i++) if (views[i].dtype === "f16") halves |= 1 << i + first;
    const pipeline = this.gpu.pipeline(kernel, halves);
    const words = kernel.pack(parameters);
    const most = this.gpu.mostWorkgroups;
    if (workgroups.some((count) => count! > most)) {
      this.#fail(
        `${kernel.name} asks for ${workgroups.join(" x ")} workgroups, where this device allows ${most} along an axis`,
      );
    }
    if (this.gpu.info.dry) return; // all is checked, and nobody reads what would be bound
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, this.#bindGroup(pipeline, words, views));
    pass.dispatchWorkgroups(workgroups[0], workgroups[1] ?? 1, workgroups[2] ?? 1);
  }

  #bindGroup(
    pipeline: GPUComputePipeline,
    words: readonly number[] | undefined,
    views: readonly View[],
  ): GPUBindGroup {
    return this.#bindGroups.get(pipeline, words, views, () => {
      const resources = views.map(({ storage, offset, bytes }) => ({
        buffer: storage.buffer,
        offset,
        size: Math.ceil(bytes / 4) * 4, // an odd number of f16 ends inside a word
      }));
      if (words) {
        resources.unshift({
          buffer: this.#uniforms.get(words),
          offset: 0,
          size: Math.ceil(words.length / 4) * 16,
        });
      }
      return this.gpu.device.createBindGroup({
        label: pipeline.label,
        layout: pipeline.getBindGroupLayout(0),
        entries: resources.map((resource, binding) => ({ binding, resource })),
      });
    });
  }

  /** Records a copy between buffers of this GPU; `bytes` is a multiple of 4. */
  copy(from: GPUBuffer, fromOffset: number, to: GPUBuffer, toOffset: number, bytes: number): void {
    this.#expectOpen("copy");
    this.#endPass();
    this.#encoder ??= this.gpu.device.createCommandEncoder();
    this.#encoder.copyBufferToBuffer(from, fromOffset, to, toOffset, bytes);
  }

  /** Records the copy of a query set's first `count` values into `to`, 8 bytes each. */
  resolveQueries(querySet: GPUQuerySet, count: number, to: GPUBuffer): void {
    this.#expectOpen("resolveQueries");
    this.#endPass();
    this.#encoder ??= this.gpu.device.createCommandEncoder();
    this.#encoder.resolveQuerySet(querySet, 0, count, to, 0);
  }

  /** Ends the recording and returns it, to be handed to the GPU's queue later: for work whose input is still on its way. */
  finish(): GPUCommandBuffer | undefined {
    this.#expectOpen("finish");
    this.#endPass();
    const commands = this.#encoder?.finish();
    this.#encoder = undefined;
    if (commands) this.#finished.add(commands);
    return commands;
  }

  /**
   * The same for work that uses nothing but memory which stays handed out until it is submitted: other recordings may be made and
   * submitted before it, and what they give back meanwhile is free.
   */
  finishAside(): GPUCommandBuffer | undefined {
    const commands = this.finish();
    if (!commands) return undefined;
    this.#aside.add(commands);
    this.discard(commands);
    return commands;
  }

  /** Hands what is recorded, or a finished recording, to the GPU as one submission. */
  submit(commands?: GPUCommandBuffer): void {
    this.#expectOpen("submit");
    commands ??= this.finish();
    if (!commands) return;
    this.gpu.queue.submit([commands]);
    if (this.gpu.info.software && !this.gpu.info.dry) yieldCore();
    this.#finished.delete(commands);
    this.#aside.delete(commands);
    if (!this.#isRecording()) this.#settleRecorded();
  }

  #isRecording(): boolean {
    return this.#encoder !== undefined || this.#finished.size > 0;
  }

  /** Nothing is recorded any more that has not been submitted. */
  #settleRecorded(): void {
    this.pool.settle();
    if (this.#aside.size === 0) this.#uniforms.settle();
  }

  /** Writes host data into a view, in order with the submissions around it. */
  write(view: View, data: Float32Array | Uint32Array | Uint16Array | ArrayBuffer): void {
    this.#expectOpen("write");
    this.submit(); // a write overtakes what is recorded but not yet submitted
    this.gpu.queue.writeBuffer(view.storage.buffer, view.offset, data as Float32Array<ArrayBuffer>);
  }

  /** The bytes of a view, once everything before it has run. */
  async read(view: View): Promise<ArrayBuffer> {
    const arrived = this.startRead(view);
    this.submit();
    return await arrived();
  }

  /**
   * Records the copy of a view to the host. To be called once that is submitted: the returned function, which waits for the
   * bytes; a wait that its {@link Device.routine} makes again and again has a name there.
   */
  startRead(view: View, name?: string): () => Promise<ArrayBuffer> {
    this.#expectOpen("read");
    const bytes = Math.ceil(view.bytes / 4) * 4;
    const isSmall = bytes <= smallRead;
    const staging = isSmall && this.#staging.pop() || this.gpu.device.createBuffer({
      size: isSmall ? smallRead : bytes,
      usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
      label: this.labelOf(isSmall ? smallRead : bytes, "transfer"),
    });
    this.#started.add(staging);
    this.copy(view.storage.buffer, view.offset, staging, 0, bytes);
    return async () => {
      this.#started.delete(staging);
      try {
        await this.mapped(staging, name);
        const content = staging.getMappedRange(0, bytes).slice(0, view.bytes);
        if (isSmall && !this.gpu.closed) {
          staging.unmap();
          this.#staging.push(staging);
        } else staging.destroy();
        return content;
      } catch (error) {
        staging.destroy();
        throw error;
      }
    };
  }

  /** Maps a staging buffer for reading; fails if anything went wrong on the GPU before it. `name` as in {@link Device.startRead}. */
  mapped(staging: GPUBuffer, name?: string): Promise<void> {
    return this.#waitFor("mapped", () => staging.mapAsync(GPUMapMode.READ), "a buffer could not be mapped", name);
  }

  /** Waits until the GPU has done everything submitted. */
  idle(): Promise<void> {
    return this.#waitFor("idle", () => {
      this.submit();
      return this.gpu.queue.onSubmittedWorkDone();
    }, "the work submitted did not end");
  }

  async #waitFor(call: string, begin: () => Promise<unknown>, failure: string, name?: string): Promise<void> {
    this.#expectOpen(call);
    const promise = begin();
    try {
      await this.gpu.wait(promise, this.routine, name);
    } catch (error) {
      this.#expectOpen(call);
      // Now, and not after the pause: this wait may be that of a message which a failed step has given up, and what is reported
      // meanwhile is for the next step to hear.
      const told = this.gpu.takeError();
      if (told === undefined) await this.gpu.settleLoss();
      this.#expectOpen(call);
      this.#fail(told ?? this.gpu.lost ?? this.gpu.full ?? `${failure}: ${reasonOf(error)}`);
    }
    this.#expectOpen(call);
    this.check();
  }

  /**
   * Submits a recording that nothing can take back, and waits until the GPU has done everything. What it returns is why the
   * recording has not run as it should; errors that others have caused are left for the next wait. `name` as in
   * {@link Device.startRead}.
   */
  async commit(commands: GPUCommandBuffer | undefined, name?: string): Promise<string | undefined> {
    const told = commands && this.gpu.attempt(() => this.submit(commands));
    told?.catch(() => {}); // the wait may fail first
    try {
      await this.gpu.wait(this.gpu.queue.onSubmittedWorkDone(), this.routine, name);
      return await told ?? this.gpu.lost;
    } catch (error) {
      await this.gpu.settleLoss();
      return this.gpu.lost ?? reasonOf(error);
    }
  }

  /** Throws the first error that the GPU has reported, with the rank named; that the device is lost, each time. */
  check(): void {
    this.#expectOpen("check");
    const error = this.gpu.takeError();
    if (error) this.#fail(error);
  }

  #expectOpen(call: string): void {
    if (!this.gpu.closed) return;
    throw new UserError(
      `The devices are closed, ${call}() on rank ${this.rank} comes too late; open others with openDevices()`,
    );
  }

  #fail(message: string): never {
    const { rank, place, activity, gpu: { info } } = this;
    throw new DeviceError(rank, activity, `${place} (${info.name}): ${message.trim()}`, place);
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }

  /** Waits until everything submitted has ended, one way or another, and forgets the errors it gave: those follow the one that was told. */
  async settle(): Promise<void> {
    if (this.gpu.closed) return;
    await this.gpu.wait(this.gpu.queue.onSubmittedWorkDone()).catch(() => {});
    this.gpu.forget();
  }

  /** Forgets a finished recording, which will not be submitted. */
  discard(commands: GPUCommandBuffer | undefined): void {
    if (commands) this.#finished.delete(commands);
    if (!this.#isRecording()) this.#settleRecorded();
  }

  /** Forgets everything recorded and not submitted, and reads that nobody waits for. */
  abandon(): void {
    if (!this.gpu.closed) this.#pass?.end();
    this.#pass = undefined;
    this.#encoder = undefined;
    this.#finished.clear();
    this.#aside.clear();
    for (const staging of this.#started) staging.destroy();
    this.#started.clear();
    this.#settleRecorded();
  }

  /**
   * Gives back what was kept for shapes that may not come again: free buffers, bind groups, uniform blocks, and the compiled
   * kernels that have not been used for longest if they are many. Anybody may go on using the device, in a step
   * or between two: what is recorded keeps what it needs, and what is missing is made anew. After {@link Gpu.close} it does nothing.
   */
  releaseCaches(): void {
    this.#bindGroups.clear();
    this.#uniforms.retire();
    this.#staging.splice(0).forEach((buffer) => buffer.destroy());
    this.pool.trim();
    if (!this.#isRecording() && this.#aside.size === 0) this.#uniforms.settle();
    if (!this.gpu.closed) this.gpu.trimPipelines();
  }

  /** Gives back all that is not handed out, ahead of {@link Gpu.close}; what is recorded never runs. */
  close(): void {
    if (this.gpu.closed) return;
    this.abandon();
    this.releaseCaches();
  }
}
