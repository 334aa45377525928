// Cross-entropy, gradient of the logits:  dlogits = scale * (softmax - kept * onehot(target) - share),  0 where the target is `ignored`

struct Parameters {
  rows: u32,
  width: u32, // classes, or vec4s of them (backward4)
  ignored: u32,
  kept: f32, // 1 - smoothing
  share: f32, // smoothing / classes
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(3) var<storage, read> log_sum_exp: array<f32>;
@group(0) @binding(4) var<storage, read> targets: array<u32>;
@group(0) @binding(5) var<storage, read> scale: array<f32>; // [1]

#include "rows"

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> dlogits${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> logits${_4}: array<${of(T2)}>;

@compute @workgroup_size(COLUMNS, ROWS)
fn backward${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let shift = log_sum_exp[row];
  let hit = targets[row];
  if (hit == p.ignored) {
    for (var i = lane.x; i < p.width; i += COLUMNS) { dlogits${_4}[start + i] = ${of(T1)}(); }
    return;
  }
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let onehot = select(${zero}, ${V}(p.kept), ${elements(i)} == ${U}(hit));
    dlogits${_4}[start + i] = ${of(T1)}(scale[0] * (exp(${V}(logits${_4}[start + i]) - shift) - onehot - p.share));
  }
}
#end
