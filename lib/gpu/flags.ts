/** WebGPU's flags, which browsers have as globals; Node, Deno without WebGPU, and Bun have them from here. */

/** Of the specification (https://www.w3.org/TR/webgpu/#namespacedef-gpubufferusage, #namespacedef-gpumapmode). */
const flags = {
  GPUBufferUsage: {
    ...{ MAP_READ: 1, MAP_WRITE: 2, COPY_SRC: 4, COPY_DST: 8, INDEX: 16, VERTEX: 32, UNIFORM: 64, STORAGE: 128 },
    ...{ INDIRECT: 256, QUERY_RESOLVE: 512 },
  },
  GPUMapMode: { READ: 1, WRITE: 2 },
};

/** Makes them globals where there are none, so that buffers can be described before a device is opened. */
export function defineFlags(): void {
  for (const [name, value] of Object.entries(flags)) {
    if (!(name in globalThis)) Object.assign(globalThis, { [name]: value });
  }
}
