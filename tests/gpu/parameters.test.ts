import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, test } from "node:test";
import { kernel, source } from "../../lib/gpu/kernel.ts";
import { packerFor, type ParameterValues } from "../../lib/gpu/parameters.ts";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { close, device } from "../ops/support.ts";

after(close);

const window = "inHeight inWidth outHeight outWidth size stride padding";
const columns = "rows width block";
const attention = "length heads members size causal padded scale:f threshold keep:f salt sequence";
const matmul =
  "m n k batch1 out.rowStride out.offset out.stride0 out.stride1 a.rowStride a.offset a.stride0 a.stride1 " +
  "b.rowStride b.offset b.stride0 b.stride1 scale:f accumulate first";
const scan = "sequences length channels projectionStride gateStride";

/** The words of every kernel's uniform block in their order: u32, or f32 where it says :f. */
const layouts: Record<string, string> = {
  attention_means: "count length heads size",
  attention_subgroup: attention,
  attention_subgroup_backward: attention,
  attention_workgroup: attention,
  attention_workgroup_backward: attention,
  batch_norm: `${columns} blocks epsilon:f momentum:f`,
  bias: "rows width",
  cached_attention: "rows heads members size stride width scale:f",
  causal_conv: "sequences length channels stride block",
  columns: "count width stride start",
  column_sum: `${columns} accumulate`,
  conv: `rows width first ${window}`,
  conv_subgroup: `rows width columns ${window}`,
  documents: "rows width length heads value:f",
  dropout: "rows width threshold keep:f salt rowsPerSample",
  elementwise: "count value:f",
  embedding: "rows width",
  look: "count limit",
  gelu: "count",
  layer_norm: "rows width epsilon:f",
  layer_norm_group: "rows width epsilon:f",
  layer_norm_vec4: "rows width epsilon:f",
  layer_norm_weight: columns,
  loss: "rows width ignored kept:f share:f",
  loss_backward: "rows width ignored kept:f share:f",
  loss_group: "rows width ignored kept:f share:f",
  loss_vec4: "rows width ignored kept:f share:f",
  matmul,
  matmul_gather: "m n count rowStride offset scale:f accumulate",
  matmul_matrix: matmul,
  matmul_quad: matmul,
  matmul_registers: matmul,
  matmul_subgroup: matmul,
  matmul_tile: matmul,
  matmul_workgroup: matmul,
  norm: "rows width epsilon:f residual",
  norm_group: "rows width epsilon:f residual",
  norm_vec4: "rows width epsilon:f residual",
  norm_weight: columns,
  muon: "count momentum:f rest:f epsilon:f factor:f decay:f",
  optimizers: "count decayed beta1:f rest1:f beta2:f rest2:f epsilon:f decay:f",
  peak: "steps",
  pool: `rows width ${window}`,
  probe: "rounds",
  relu: "count",
  // Six words, two of padding, then three vec4f as FREQUENCIES asks for.
  rope: `rows length heads stride pairs direction:f _ _ ${
    Array.from({ length: 12 }, (_, i) => `frequencies.${i}:f`).join(" ")
  }`,
  scan,
  scan_backward: `${scan} chunk span`,
  scan_chunks: `${scan} chunk span`,
  scan_subgroup: `${scan} chunk span`,
  scan_sums: `${scan} chunk span`,
  scan_sums_chunks: `${scan} chunk span`,
  softmax: "rows length heads causal",
  softmax_group: "rows length heads causal",
  softmax_vec4: "rows length heads causal",
  squared_error: "rows width",
  squared_error_group: "rows width",
  squared_error_vec4: "rows width",
  sum: "count accumulate",
  swiglu: "rows width",
};

test("the layouts below are those of all kernels", () => {
  const files = readdirSync(new URL("../../kernels/", import.meta.url)).filter((file) => file.endsWith(".wgsl"));
  assert.deepEqual(files.map((file) => file.replace(".wgsl", "")).sort(), Object.keys(layouts).sort());
});

for (const [file, layout] of Object.entries(layouts)) {
  test(`the parameters of ${file}.wgsl lie where a DataView written by hand has them`, () => {
    const words = layout.split(" ");
    const expected = new DataView(new ArrayBuffer(4 * words.length));
    // deno-lint-ignore no-explicit-any -- nested by the names above
    const values: any = {};
    words.forEach((word, i) => {
      if (word === "_") return;
      const [path, type] = word.split(":");
      const value = type === "f" ? i + 1.1 : 4_000_000_000 + i;
      if (type === "f") expected.setFloat32(4 * i, value, true);
      else expected.setUint32(4 * i, value, true);
      const [name, inner] = path.split(".");
      if (inner === undefined) values[name] = value;
      else if (/\d/.test(inner) && name === "frequencies") (values[name] ??= []).push(value);
      else (values[name] ??= {})[inner] = value;
    });
    const pack = packerFor(file, source(kernel(file, "any", file === "rope" ? { FREQUENCIES: 3 } : {})));
    assert.deepEqual(Uint32Array.from(pack(values)!), new Uint32Array(expected.buffer));
  });
}

const mixed = `
const LENGTH = 2u;
struct Parameters {
  first: u32, // and, behind a gap, pair: vec2u
  pair: vec2u,
  three: vec3f, one: f32, // fits behind the three
  list: array<vec4<i32>, LENGTH>,
  below: i32,
  last: f32,
}
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(1)
fn copy() {
  let read = array<f32, 18>(
    f32(p.first), f32(p.pair.x), f32(p.pair.y), p.three.x, p.three.y, p.three.z, p.one,
    f32(p.list[0].x), f32(p.list[0].y), f32(p.list[0].z), f32(p.list[0].w),
    f32(p.list[1].x), f32(p.list[1].y), f32(p.list[1].z), f32(p.list[1].w), f32(p.below), p.last, 0,
  );
  for (var i = 0u; i < 18u; i++) { out[i] = read[i]; }
}`;

test("vectors, arrays and signed numbers lie where the shader compiler reads them", async () => {
  const gpu = (await device()).gpu.device;
  const values = { first: 1, pair: [2, 3], three: [4.5, 5.5, 6.5], one: 7.5, below: -16, last: 17.5 };
  const words = packerFor("mixed", mixed)({ ...values, list: [-8, 9, 10, 11, 12, 13, 14, -15] })!;
  const module = gpu.createShaderModule({ code: mixed });
  const pipeline = gpu.createComputePipeline({ layout: "auto", compute: { module } });
  const { UNIFORM, COPY_DST, COPY_SRC, MAP_READ, STORAGE } = GPUBufferUsage;
  const uniform = gpu.createBuffer({ size: 4 * Math.ceil(words.length / 4) * 4, usage: UNIFORM | COPY_DST });
  const out = gpu.createBuffer({ size: 72, usage: STORAGE | COPY_SRC });
  const staging = gpu.createBuffer({ size: 72, usage: COPY_DST | MAP_READ });
  gpu.queue.writeBuffer(uniform, 0, Uint32Array.from(words));
  const encoder = gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  const entries = [uniform, out].map((buffer, binding) => ({ binding, resource: { buffer } }));
  pass.setBindGroup(0, gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(out, 0, staging, 0, 72);
  gpu.queue.submit([encoder.finish()]);
  await (await device()).mapped(staging);
  const read = [...new Float32Array(staging.getMappedRange().slice(0))];
  assert.deepEqual(read, [1, 2, 3, 4.5, 5.5, 6.5, 7.5, -8, 9, 10, 11, 12, 13, 14, -15, -16, 17.5, 0]);
  for (const buffer of [uniform, out, staging]) buffer.destroy();
});

test("what does not fit is an Error that names kernel and field", () => {
  const pack = packerFor(
    "norm:forward",
    `struct Inner { a: u32, b: i32 }
    struct Parameters { rows: u32, shift: i32, epsilon: f32, inner: Inner, list: array<vec4f, 2> }
    var<uniform> p: Parameters;`,
  );
  const good = { rows: 1, shift: -1, epsilon: 0.5, inner: { a: 1, b: 2 }, list: [1, 2, 3, 4, 5, 6, 7, 8] };
  assert.ok(pack(good));
  const refused = (change: Readonly<Record<string, unknown>>, message: RegExp) =>
    assert.throws(() => pack({ ...good, ...change } as ParameterValues), message);
  refused({ rows: undefined }, /^UserError: norm:forward: no value for the parameter rows$/);
  refused({ rows: -1 }, /^UserError: norm:forward: the parameter rows is -1 where a u32 is needed$/);
  refused({ rows: 1.5 }, /rows is 1.5 where a u32/);
  refused({ rows: 2 ** 32 }, /rows is 4294967296 where a u32/);
  refused({ rows: NaN }, /rows is NaN where a u32/);
  refused({ rows: "7" }, /rows is 7 where a u32/);
  refused({ rows: [7] }, /rows is a list of 1 where a u32/);
  refused({ shift: 2 ** 31 }, /shift is 2147483648 where a i32/);
  refused({ epsilon: 1e39 }, /epsilon is 1e\+39 where a f32/);
  refused({ epsilon: undefined }, /no value for the parameter epsilon/);
  refused({ inner: 3 }, /inner is 3 where a record of a, b is needed/);
  refused({ inner: { a: 1 } }, /no value for the parameter inner.b/);
  refused({ inner: { a: 1, b: 2, c: 3 } }, /norm:forward has no parameter inner.c; it has inner.a, inner.b/);
  refused({ list: [1, 2] }, /list is a list of 2 where a list of 8 f32 is needed/);
  refused({ rowz: 1 }, /norm:forward has no parameter rowz; it has rows, shift, epsilon, inner, list/);
  assert.throws(() => pack(undefined), /norm:forward needs parameters: rows, shift/);
  assert.throws(
    () => packerFor("plain:copy", "var<storage> x: array<u32>;")({ rows: 1 }),
    /plain:copy takes no parameters/,
  );
  assert.equal(packerFor("plain:copy", "")(undefined), undefined);
});

test("a number that is none, or infinite, is a f32 all the same", () => {
  const pack = packerFor("any", "struct Parameters { x: f32, y: f32 } var<uniform> p: Parameters;");
  assert.deepEqual([...pack({ x: NaN, y: -Infinity })!], [0x7fc00000, 0xff800000]);
});

test("a struct that cannot be laid out is refused when the kernel is loaded", () => {
  const load = (type: string) => packerFor("odd", `struct Parameters { x: ${type} } var<uniform> p: Parameters;`);
  assert.throws(() => load("f16"), /odd: no parameter can be of type f16/);
  assert.throws(() => load("array<f32, 4>"), /no parameter can be of type array<f32,4>/);
  assert.throws(() => load("u32, @size(16) y: u32"), /no field of Parameters can have an attribute/);
  assert.throws(
    () => packerFor("odd", "var<uniform> p: vec4u;"),
    /the uniform block is vec4u where a struct is needed/,
  );
});

test("a dispatch with a wrong name is refused, on devices without memory as well", () => {
  const [on] = dryDevices(1);
  const storage = on.allocate(64, "workspace");
  const view = { storage, offset: 0, bytes: 64 };
  const fill = kernel("elementwise", "fill");
  on.dispatch(fill, { count: 16, value: 1 }, [view], [1]);
  assert.throws(
    () => on.dispatch(fill, { count: 16, valu: 1 }, [view], [1]),
    /elementwise:fill: no value for .* value/,
  );
  assert.throws(() => on.dispatch(fill, { count: 0.5, value: 1 }, [view], [1]), /count is 0.5 where a u32 is needed/);
});
