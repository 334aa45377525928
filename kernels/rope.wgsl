// Rotary position embedding (Su et al. 2021) in place, pairs (i, i + headSize / 2) as Hugging Face's LLaMA has them.
// One invocation turns one pair of every head in a row: the angle is the same in all of them, and costs most.

const FREQUENCIES = 16u; // vec4s of frequencies

struct Parameters {
  rows: u32,
  length: u32, // of a sequence: position = row % length, or so many behind `first`
  heads: u32,
  stride: u32, // of a row, in elements (rotate) or vec4s (rotate4), like the next
  pairs: u32, // half a head
  direction: f32, // 1, or -1 to turn back
  frequencies: array<vec4f, FREQUENCIES>, // base^(-2i / headSize)
}

alias T1 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<T1>;

const WORKGROUP = 64u;

fn turn_pair(i: u32, first: u32) {
  let row = i / p.pairs;
  if (row >= p.rows) { return; }
  let pair = i % p.pairs;
  let angle = f32(first + row % p.length) * p.frequencies[pair / 4u][pair % 4u];
  let turn = sine_cosine(vec4f(angle));
  let s = turn.sine.x * p.direction;
  let c = turn.cosine.x;
  var at = row * p.stride + pair;
  for (var head = 0u; head < p.heads; head++) {
    let low = f32(x[at]);
    let high = f32(x[at + p.pairs]);
    x[at] = T1(low * c - high * s);
    x[at + p.pairs] = T1(high * c + low * s);
    at += 2u * p.pairs;
  }
}

@compute @workgroup_size(WORKGROUP)
fn rotate(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  turn_pair(id.x + id.y * n.x * WORKGROUP, 0u);
}

@group(0) @binding(2) var<storage, read> first: array<u32>; // [1]: position of the first row of each sequence

@compute @workgroup_size(WORKGROUP)
fn rotate_from(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  turn_pair(id.x + id.y * n.x * WORKGROUP, first[0]);
}

@group(0) @binding(1) var<storage, read_write> x4: array<vec4<T1>>;

// The same, four pairs an invocation.
fn turn_pairs(i: u32, first: u32) {
  let row = i / p.pairs;
  if (row >= p.rows) { return; }
  let pair = i % p.pairs;
  let turn = sine_cosine(f32(first + row % p.length) * p.frequencies[pair]);
  let s = turn.sine * p.direction;
  let c = turn.cosine;
  var at = row * p.stride + pair;
  for (var head = 0u; head < p.heads; head++) {
    let low = vec4f(x4[at]);
    let high = vec4f(x4[at + p.pairs]);
    x4[at] = vec4<T1>(low * c - high * s);
    x4[at + p.pairs] = vec4<T1>(high * c + low * s);
    at += 2u * p.pairs;
  }
}

@compute @workgroup_size(WORKGROUP)
fn rotate4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  turn_pairs(id.x + id.y * n.x * WORKGROUP, 0u);
}

@compute @workgroup_size(WORKGROUP)
fn rotate4_from(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  turn_pairs(id.x + id.y * n.x * WORKGROUP, first[0]);
}

struct Turn {
  sine: vec4f,
  cosine: vec4f,
}

// The built-in functions may be off by 2^-11 (SwiftShader's are off by 2e-4), and beyond pi by anything. This is the
// single precision pair of the Cephes library: reduction by multiples of pi / 2 in three steps, exact up to angles of
// 100,000, and its polynomials for [-pi / 4, pi / 4].
fn sine_cosine(angle: vec4f) -> Turn {
  let quarters = round(angle * 0.6366197723675814);
  let r = ((angle - quarters * 1.5703125) - quarters * 4.837512969970703e-4) - quarters * 7.549789948768648e-8;
  let z = r * r;
  let s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4));
  let c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
  let quadrant = vec4u(quarters) & vec4u(3);
  let odd = (quadrant & vec4u(1)) != vec4u(0);
  let sine = select(s, c, odd);
  let cosine = select(c, s, odd);
  return Turn(
    select(sine, -sine, quadrant >= vec4u(2)),
    select(cosine, -cosine, (quadrant == vec4u(1)) | (quadrant == vec4u(2))),
  );
}
