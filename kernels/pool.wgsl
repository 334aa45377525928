// Pooling of images [samples, height, width, channels]. A row is a pixel, of the result or, in the backwards, of dx.

#include "not_finite"

struct Parameters {
  rows: u32,
  width: u32, // channels, in elements, or vec4s (the entries that end in 4)
  inHeight: u32,
  inWidth: u32,
  outHeight: u32,
  outWidth: u32,
  size: u32, // of the window
  stride: u32,
  padding: u32,
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

#include "rows"

// The largest value that the window sees, and the number of the tap that sees it first. As in PyTorch a NaN is larger than
// all, and the last one counts.

@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read_write> taps: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<T3>;

@compute @workgroup_size(COLUMNS, ROWS)
fn largest(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let line = row / p.outWidth;
  let sample = line / p.outHeight;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    var best = 0.0;
    var first = p.size * p.size; // none yet
    var found = false; // a NaN
    for (var tap = 0u; tap < p.size * p.size; tap++) {
      // Beyond the upper and left edge these wrap around and are no less beyond the lower and right one.
      let h = line % p.outHeight * p.stride + tap / p.size - p.padding;
      let w = row % p.outWidth * p.stride + tap % p.size - p.padding;
      if (h < p.inHeight && w < p.inWidth) {
        let value = f32(x[((sample * p.inHeight + h) * p.inWidth + w) * p.width + i]);
        let nan = is_nan(value);
        let better = nan || (value > best && !found) || first == p.size * p.size;
        found = found || nan;
        best = select(best, value, better);
        first = select(first, tap, better);
      }
    }
    y[row * p.width + i] = T1(best);
    taps[row * p.width + i] = first;
  }
}

@group(0) @binding(1) var<storage, read_write> y4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read_write> taps4: array<vec4u>;
@group(0) @binding(3) var<storage, read> x4: array<vec4<T3>>;

@compute @workgroup_size(COLUMNS, ROWS)
fn largest4(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let line = row / p.outWidth;
  let sample = line / p.outHeight;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    var best = vec4f();
    var first = vec4u(p.size * p.size);
    var found = vec4<bool>();
    for (var tap = 0u; tap < p.size * p.size; tap++) {
      let h = line % p.outHeight * p.stride + tap / p.size - p.padding;
      let w = row % p.outWidth * p.stride + tap % p.size - p.padding;
      if (h < p.inHeight && w < p.inWidth) {
        let value = vec4f(x4[((sample * p.inHeight + h) * p.inWidth + w) * p.width + i]);
        let nan = is_nan4(value);
        let better = nan | ((value > best) & !found) | (first == vec4u(p.size * p.size));
        found = found | nan;
        best = select(best, value, better);
        first = select(first, vec4u(tap), better);
      }
    }
    y4[row * p.width + i] = vec4<T1>(best);
    taps4[row * p.width + i] = first;
  }
}

// dx[pixel] = sum of dy over the windows whose largest value the pixel is: every pixel asks the windows that see it.

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> dx${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> dy${_4}: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> taps_in${_4}: array<${U}>;

@compute @workgroup_size(COLUMNS, ROWS)
fn largest_backward${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let line = row / p.inWidth;
  let sample = line / p.inHeight;
  let h = line % p.inHeight + p.padding;
  let w = row % p.inWidth + p.padding;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    var sum = ${zero};
    for (var a = h % p.stride; a < p.size; a += p.stride) {
      let oh = (h - a) / p.stride;
      for (var b = w % p.stride; b < p.size; b += p.stride) {
        let ow = (w - b) / p.stride;
        if (a <= h && b <= w && oh < p.outHeight && ow < p.outWidth) {
          let at = ((sample * p.outHeight + oh) * p.outWidth + ow) * p.width + i;
          sum += select(${zero}, ${V}(dy${_4}[at]), taps_in${_4}[at] == ${U}(a * p.size + b));
        }
      }
    }
    dx${_4}[row * p.width + i] = ${of(T1)}(sum);
  }
}
#end

// Means over all pixels of a sample: here rows are samples, and each channel has an invocation.

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> means${_4}: array<${of(T1)}>; // [samples, channels]
@group(0) @binding(2) var<storage, read> pixels${_4}: array<${of(T2)}>;

@compute @workgroup_size(COLUMNS * ROWS)
fn average${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * COLUMNS * ROWS;
  if (at >= p.rows * p.width) { return; }
  let count = p.inHeight * p.inWidth;
  let start = at / p.width * count * p.width + at % p.width;
  var sum = ${zero};
  for (var i = 0u; i < count; i++) { sum += ${V}(pixels${_4}[start + i * p.width]); }
  means${_4}[at] = ${of(T1)}(sum / f32(count));
}

@group(0) @binding(1) var<storage, read_write> dpixels${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> dmeans${_4}: array<${of(T2)}>; // [samples, channels]

@compute @workgroup_size(COLUMNS, ROWS)
fn average_backward${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let count = p.inHeight * p.inWidth;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    dpixels${_4}[row * p.width + i] = ${of(T1)}(${V}(dmeans${_4}[row / count * p.width + i]) / f32(count));
  }
}
#end
