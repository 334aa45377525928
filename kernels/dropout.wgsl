// Dropout: out = x * mask, where the mask is 1 / (1 - rate) or 0. A product, as in PyTorch: NaN and infinity give NaN where
// they are dropped. The mask is not stored: it is a hash of the step's seed, the layer, and where the element lies in the whole
// batch, so that it is the same in both passes and in micro-batches of any size.

struct Parameters {
  rows: u32,
  width: u32, // in elements, or vec4s (apply4)
  threshold: u32, // rate * 2^32: hashes below it drop
  keep: f32, // 1 / (1 - rate)
  salt: u32, // of the layer
  rowsPerSample: u32,
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> out: array<T1>;
@group(0) @binding(2) var<storage, read> x: array<T2>;
@group(0) @binding(3) var<storage, read> seed: array<u32>; // [2]: of the step, first sample of the micro-batch

const COLUMNS = 1u;
const ROWS = 64u;

@compute @workgroup_size(COLUMNS, ROWS)
fn apply(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  let key = key_of(row);
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let at = row * p.width + i;
    out[at] = T1(f32(x[at]) * select(0.0, p.keep, hash(key, vec4u(i)).x >= p.threshold));
  }
}

@group(0) @binding(1) var<storage, read_write> out4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> x4: array<vec4<T2>>;

// The same, four elements a step.
@compute @workgroup_size(COLUMNS, ROWS)
fn apply4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  let key = key_of(row);
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let at = row * p.width + i;
    let keeps = hash(key, 4u * i + vec4u(0, 1, 2, 3)) >= vec4u(p.threshold);
    out4[at] = vec4<T1>(vec4f(x4[at]) * select(vec4f(0), vec4f(p.keep), keeps));
  }
}

fn key_of(row: u32) -> vec4u {
  return mix32(mix32(vec4u(seed[0] ^ p.salt)) + seed[1] * p.rowsPerSample + row);
}

fn hash(key: vec4u, column: vec4u) -> vec4u { return mix32(key ^ (column * 0x9e3779b9u)); }

// "lowbias32" of C. Wellons' hash prospector: every input bit flips each output bit in half of all cases, to 0.2 %.
fn mix32(value: vec4u) -> vec4u {
  var h = value;
  h = (h ^ (h >> vec4u(16))) * 0x7feb352du;
  h = (h ^ (h >> vec4u(15))) * 0x846ca68bu;
  return h ^ (h >> vec4u(16));
}
