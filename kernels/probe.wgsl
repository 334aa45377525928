// Arithmetic that keeps a GPU busy for a time that `rounds` sets: no result is of use.

struct Parameters {
  rounds: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn spin(@builtin(global_invocation_id) id: vec3u) {
  var x = f32(id.x) * 1e-6;
  for (var i = 0u; i < p.rounds; i++) { x = fma(x, 0.999, 0.001); }
  y[id.x] = x;
}
