// LayerNorm, one workgroup a row, for GPUs: neighbouring invocations read neighbouring elements. See layer_norm.wgsl.

const WORKGROUP = 128u;

#include "rows_group"
#include "layer_norm"

var<workgroup> partial: array<vec2f, WORKGROUP>;

// The sums of `value` over the workgroup, the same in every invocation.
fn total(lane: u32, value: vec2f) -> vec2f {
  workgroupBarrier(); // all have read what the last call left
  partial[lane] = value;
  #define merge partial[lane] += partial[lane + half];
  #include "halves"
  return partial[0];
}

var<workgroup> moments: array<vec3f, WORKGROUP>;

// Mean, squared distances from it and count of all that the workgroup's invocations have seen, from those of each
// (Welford, 1962, merged after Chan, Golub, LeVeque, 1979).
fn merged(lane: u32, mine: vec3f) -> vec3f {
  moments[lane] = mine;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      let a = moments[lane];
      let b = moments[lane + half];
      let count = a.z + b.z;
      let share = b.z / max(count, 1.0);
      let apart = b.x - a.x;
      moments[lane] = vec3f(a.x + apart * share, a.y + b.y + apart * apart * a.z * share, count);
    }
    workgroupBarrier();
  }
  return moments[0];
}

@compute @workgroup_size(WORKGROUP)
fn forward(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var mine = vec3f();
  for (var i = lane; i < p.width; i += WORKGROUP) {
    let value = f32(x[start + i]);
    let step = value - mine.x;
    mine.z += 1.0;
    mine.x += step / mine.z;
    mine.y += step * (value - mine.x);
  }
  let all = merged(lane, mine);
  let mean = all.x;
  let rstd = reciprocal_deviation(all.y / f32(p.width), p.epsilon);
  if (lane == 0u) { statistics_out[row] = vec2f(mean, rstd); }
  for (var i = lane; i < p.width; i += WORKGROUP) {
    y[start + i] = T1((f32(x[start + i]) - mean) * rstd * f32(gain[i]) + f32(bias[i]));
  }
}

// As in layer_norm_backward.wgsl, both sums at once.
@compute @workgroup_size(WORKGROUP)
fn backward_input(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let mean = statistics[row].x;
  let rstd = statistics[row].y;
  var sums = vec2f();
  for (var i = lane; i < p.width; i += WORKGROUP) {
    let g = f32(dy[start + i]) * f32(gain_in[i]);
    sums += g * vec2f(1, f32(x_in[start + i]) - mean);
  }
  let means = total(lane, sums) / f32(p.width);
  let level = means.x * rstd;
  let along = means.y * rstd * rstd * rstd;
  for (var i = lane; i < p.width; i += WORKGROUP) {
    let g = f32(dy[start + i]) * f32(gain_in[i]);
    dx[start + i] = T1(rstd * g - level - along * (f32(x_in[start + i]) - mean));
  }
}
