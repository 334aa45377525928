// The squared error, in the words of rows_plain.wgsl and its like.
//   losses = sum of (y - target)^2 over a row,  dy = 2 * scale * (y - target)

struct Parameters {
  rows: u32,
  width: u32, // in steps of a load: elements or vec4s
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> losses: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> targets: array<${of(f32)}>;

@compute @workgroup_size(WORKGROUP)
fn forward(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var squares = ${zero};
  for (var i = ${first}; i < p.width; ${next}) {
    let error = ${V}(y[start + i]) - targets[start + i];
    squares += error * error;
  }
  let loss = ${total(squares)};
  ${once(losses[row] = loss;)}
}

@group(0) @binding(1) var<storage, read_write> dy: array<${of(T1)}>;
@group(0) @binding(4) var<storage, read> scale: array<f32>; // [1]

@compute @workgroup_size(WORKGROUP)
fn backward(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let start = row * p.width;
  for (var i = ${first}; i < p.width; ${next}) {
    dy[start + i] = ${of(T1)}(2.0 * scale[0] * (${V}(y[start + i]) - targets[start + i]));
  }
}
