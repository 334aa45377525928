/** Uniform buffers of a device: equal blocks share one, so that a steady step makes none. */

/** Uniform blocks by what they hold. */
export interface Uniforms {
  /** The buffer with these 32-bit words, made at first use. */
  get(words: readonly number[]): GPUBuffer;
  /** Forgets all; their buffers live until {@link Uniforms.settle}, since a recording may use them. */
  retire(): void;
  /** All that was recorded has been submitted: what is retired is destroyed. */
  settle(): void;
}

/** An empty cache on `device`; `label` names a new buffer of so many bytes. */
export function createUniforms(device: GPUDevice, label: (bytes: number) => string): Uniforms {
  const buffers = new Map<string, GPUBuffer>();
  let retired: GPUBuffer[] = [];
  return {
    get(words) {
      const key = words.join(",");
      let buffer = buffers.get(key);
      if (!buffer) {
        const size = Math.max(16, Math.ceil(words.length / 4) * 16);
        // Written, not mapped at its creation: that would give each block a memory mapping of its own for a while.
        const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
        buffer = device.createBuffer({ size, usage, label: label(size) });
        device.queue.writeBuffer(buffer, 0, Uint32Array.from(words));
        buffers.set(key, buffer);
      }
      return buffer;
    },
    retire() {
      retired.push(...buffers.values());
      buffers.clear();
    },
    settle() {
      if (retired.length === 0) return;
      retired.forEach((buffer) => buffer.destroy());
      retired = [];
    },
  };
}
