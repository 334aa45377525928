/**
 * A GPU of a browser's page as a device here: everything that records, checks and compares is this project's own code in this
 * process, and what it calls of WebGPU is done in the page, in order, whenever something is waited for.
 */
import { Buffer } from "node:buffer";
import type { OpenAdapter } from "../../lib/gpu/driver.ts";
import { defineFlags } from "../../lib/gpu/flags.ts";
import { Gpu } from "../../lib/gpu/gpu.ts";
import type { Page } from "./chromium.ts";

/** What the page says of its adapter. */
interface RemoteAdapter {
  readonly info: GPUAdapterInfo;
  readonly features: string[];
  readonly limits: Record<string, number>;
}

/** A call of the page's, with plain arguments; objects of WebGPU go by numbers. */
type Call = readonly [name: string, ...values: unknown[]];

/** What the calls of one message have come to. */
interface Reply {
  /** Of calls that read, in their order, in base64. */
  readonly values: (string | null)[];
  /** What WebGPU holds against them. */
  readonly errors: { readonly kind: string; readonly message: string }[];
}

/** Runs in the page. `open` gives what there is of an adapter, `run` does calls. */
const inPage = `(() => {
  const objects = new Map();
  let device;
  const filters = ["validation", "out-of-memory", "internal"];
  const limits = ["maxBufferSize", "maxStorageBufferBindingSize", "maxComputeWorkgroupStorageSize",
    "maxComputeInvocationsPerWorkgroup", "maxComputeWorkgroupSizeX", "maxComputeWorkgroupSizeY",
    "maxStorageBuffersPerShaderStage"];
  const calls = {
    buffer: (id, descriptor) => void objects.set(id, device.createBuffer(descriptor)),
    destroy: (id) => { objects.get(id).destroy(); objects.delete(id); },
    write: (id, offset, bytes) => device.queue.writeBuffer(objects.get(id), offset, Uint8Array.fromBase64(bytes)),
    module: (id, descriptor) => void objects.set(id, device.createShaderModule(descriptor)),
    pipeline: (id, label, module, entryPoint) => void objects.set(id, device.createComputePipeline(
      { label, layout: "auto", compute: { module: objects.get(module), entryPoint } })),
    group: (id, label, pipeline, entries) => void objects.set(id, device.createBindGroup({
      label, layout: objects.get(pipeline).getBindGroupLayout(0),
      entries: entries.map(([binding, buffer, offset, size]) =>
        ({ binding, resource: { buffer: objects.get(buffer), offset, size } })) })),
    submit(commands) {
      const encoder = device.createCommandEncoder();
      let pass;
      for (const [name, ...values] of commands) {
        if (name === "pass") pass = encoder.beginComputePass();
        else if (name === "end") pass.end();
        else if (name === "set") pass.setPipeline(objects.get(values[0]));
        else if (name === "bind") pass.setBindGroup(0, objects.get(values[0]));
        else if (name === "dispatch") pass.dispatchWorkgroups(...values);
        else encoder.copyBufferToBuffer(objects.get(values[0]), values[1], objects.get(values[2]), values[3], values[4]);
      }
      device.queue.submit([encoder.finish()]);
    },
    async map(id) {
      const buffer = objects.get(id);
      await buffer.mapAsync(GPUMapMode.READ);
      const text = new Uint8Array(buffer.getMappedRange()).toBase64();
      buffer.unmap();
      return text;
    },
    async done() { await device.queue.onSubmittedWorkDone(); return null; },
  };
  globalThis.twobp = {
    async open() {
      const adapter = await navigator.gpu?.requestAdapter();
      if (!adapter) return null;
      const features = ["subgroups", "shader-f16"].filter((each) => adapter.features.has(each));
      const allowed = Object.fromEntries(limits.map((name) => [name, adapter.limits[name]]));
      device = await adapter.requestDevice({ requiredFeatures: features, requiredLimits: allowed });
      const { vendor, architecture, device: name, description, subgroupMinSize, subgroupMaxSize } = adapter.info;
      const info = { vendor, architecture, device: name, description, subgroupMinSize, subgroupMaxSize,
        isFallbackAdapter: adapter.info.isFallbackAdapter };
      return { info, features, limits: allowed };
    },
    async run(list) {
      for (const filter of filters) device.pushErrorScope(filter);
      const values = list.map(([name, ...given]) => calls[name](...given)).filter((each) => each instanceof Promise);
      const found = (await Promise.all(filters.map(() => device.popErrorScope()))).filter((each) => each);
      const settled = await Promise.allSettled(values);
      return {
        values: settled.map((each) => each.status === "fulfilled" ? each.value : null),
        errors: [...found.map((each) => ({ kind: each.constructor.name, message: each.message })),
          ...settled.filter((each) => each.reason).map((each) => ({ kind: "GPUInternalError", message: String(each.reason) }))],
      };
    },
  };
})()`;

/** A page's GPU, or undefined where it has none. */
export async function remoteGpu(page: Page): Promise<Gpu | undefined> {
  defineFlags();
  await page.evaluate(inPage);
  const adapter = await page.evaluate("twobp.open()") as RemoteAdapter | null;
  if (!adapter) return undefined;
  const device = remoteDevice(page, adapter);
  return new Gpu(
    { driver: "system", implementation: "dawn", instance: {}, adapter: { info: adapter.info }, device } as OpenAdapter,
  );
}

/** The part of WebGPU that this project calls. */
function remoteDevice(page: Page, { features, limits }: RemoteAdapter): GPUDevice {
  let calls: Call[] = [], last = 0;
  const listeners = new Set<(event: Event) => void>();
  /** Labels and errors go by the names that Dawn's Node binding has for them. */
  const report = (error: Reply["errors"][number]) => {
    const event = new Event("uncapturederror", { cancelable: true });
    const Kind = { [error.kind]: class extends Error {} }[error.kind];
    listeners.forEach((listener) => listener(Object.assign(event, { error: new Kind(error.message) })));
  };
  const idOf = (object: unknown) => (object as { readonly id: number }).id;
  const object = (name: string, ...values: unknown[]) => {
    calls.push([name, ++last, ...values]);
    return { id: last };
  };
  /** Does all calls so far, and one more that waits; what that gives. Messages are sent one after the other. */
  let before: Promise<unknown> = Promise.resolve();
  const wait = (call: Call): Promise<string | null> => {
    const list = [...calls, call];
    calls = [];
    const reply = before.then(() => page.evaluate(`twobp.run(${JSON.stringify(list)})`)) as Promise<Reply>;
    before = reply.catch(() => {});
    return reply.then(({ values, errors }) => {
      errors.forEach(report);
      return values[0];
    });
  };
  const encoder = () => {
    const commands: Call[] = [];
    return {
      beginComputePass() {
        commands.push(["pass"]);
        return {
          setPipeline: (pipeline: unknown) => void commands.push(["set", idOf(pipeline)]),
          setBindGroup: (_: number, group: unknown) => void commands.push(["bind", idOf(group)]),
          dispatchWorkgroups: (...counts: number[]) => void commands.push(["dispatch", ...counts]),
          end: () => void commands.push(["end"]),
        };
      },
      copyBufferToBuffer: (from: unknown, at: number, to: unknown, toAt: number, bytes: number) =>
        void commands.push(["copy", idOf(from), at, idOf(to), toAt, bytes]),
      finish: () => ({ commands }),
    };
  };
  const remote = {
    features: new Set(features),
    limits,
    lost: new Promise(() => {}),
    addEventListener: (_: string, listener: (event: Event) => void) => void listeners.add(listener),
    removeEventListener: (_: string, listener: (event: Event) => void) => void listeners.delete(listener),
    destroy() {},
    pushErrorScope() {}, // what is wrong is reported where it is waited for
    popErrorScope: () => Promise.resolve(null),
    queue: {
      writeBuffer(buffer: unknown, offset: number, data: ArrayBuffer | ArrayBufferView) {
        const bytes = ArrayBuffer.isView(data)
          ? Buffer.from(data.buffer, data.byteOffset, data.byteLength)
          : Buffer.from(data);
        calls.push(["write", idOf(buffer), offset, bytes.toString("base64")]);
      },
      submit: (lists: { readonly commands: Call[] }[]) =>
        lists.forEach(({ commands }) => calls.push(["submit", commands])),
      onSubmittedWorkDone: () => wait(["done"]),
    },
    createBuffer({ size, usage, label }: GPUBufferDescriptor) {
      const { id } = object("buffer", { size, usage, label });
      let content: Uint8Array<ArrayBuffer> | undefined;
      return {
        id,
        async mapAsync() {
          const text = await wait(["map", id]);
          if (text === null) throw new Error("the page could not map a buffer");
          content = Uint8Array.from(Buffer.from(text, "base64"));
        },
        getMappedRange: (from = 0, bytes = size) => content!.buffer.slice(from, from + bytes),
        unmap: () => void (content = undefined),
        destroy: () => void calls.push(["destroy", id]),
      };
    },
    createShaderModule: ({ label, code }: GPUShaderModuleDescriptor) => object("module", { label, code }),
    createComputePipeline({ label, compute: { module, entryPoint } }: GPUComputePipelineDescriptor) {
      const made = object("pipeline", label, idOf(module), entryPoint);
      return { ...made, label, getBindGroupLayout: () => made };
    },
    createBindGroup({ label, layout, entries }: GPUBindGroupDescriptor) {
      const bound = [...entries].map(({ binding, resource }) => {
        const { buffer, offset, size } = resource as GPUBufferBinding;
        return [binding, idOf(buffer), offset, size];
      });
      return object("group", label, idOf(layout), bound);
    },
    createCommandEncoder: encoder,
  };
  return remote as unknown as GPUDevice;
}
