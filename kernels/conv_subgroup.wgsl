// Convolution without the patches in memory (implicit GEMM; Chetlur et al., "cuDNN", 2014), for processors that pose as GPUs and
// have subgroups. The product is that of matmul_subgroup.wgsl, tile and all: each lane loads its share of 32 patches of the
// image where they lie, four channels of one tap at a time, and broadcasts it; each owns four columns of the weight.
//
// Forward: the weight is [taps, depth, columns]. Input gradient (TRANSPOSE): the images are dy, and each tap of the weight is
// [columns, depth]. A pixel of dx is seen by every stride-th tap in each direction, and all pixels that lie alike towards the
// stride by the same taps: these are the rows of one of stride * stride products, so that no tap is multiplied in vain.
// Needs depth and columns divisible by 4.
enable subgroups;

struct Parameters {
  rows: u32, // pixels of the result
  width: u32, // channels of an image, in vec4s
  columns: u32, // channels of the result
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
@group(0) @binding(1) var<storage, read_write> y: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> images: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> weight: array<vec4<T3>>;

const TRANSPOSE = 0u;
const LANES = 8u; // in a subgroup: 4, 8 or 16
const ROWS = 32u; // of a tile

@compute @workgroup_size(LANES)
fn convolve(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let part = partOf(group.z);
  if (part.height == 0 || part.width == 0) { return; }
  let rows = p.rows / (p.outHeight * p.outWidth) * part.height * part.width;
  let across = (p.columns + 4 * LANES - 1) / (4 * LANES);
  let tile = group.x + group.y * grid.x;
  if (tile >= across * ((rows + ROWS - 1) / ROWS)) { return; }
  let row = tile / across * ROWS;
  let column = tile % across * 4 * LANES + lane * 4;

  // Where the first tap stands of the rows that this lane loads; it may be outside.
  var top: array<u32, 8>;
  var left: array<u32, 8>;
  var above: array<u32, 8>; // lines of all images before this one
  for (var i = 0u; i < ROWS / LANES; i++) {
    let pixel = min(row + i * LANES + lane, rows - 1);
    let line = pixel / part.width;
    let h = line % part.height;
    let w = pixel % part.width;
    if (TRANSPOSE == 1) {
      top[i] = (h * p.stride + part.top + p.padding) / p.stride;
      left[i] = (w * p.stride + part.left + p.padding) / p.stride;
    } else {
      top[i] = h * p.stride - p.padding;
      left[i] = w * p.stride - p.padding;
    }
    above[i] = line / part.height * p.inHeight;
  }
  let bStride = select(p.columns / 4, p.width, TRANSPOSE == 1);
  let bColumn = min(column, p.columns - 4) / 4 * select(1, 4 * p.width, TRANSPOSE == 1);

  #repeat r 0 32
    var c${r} = vec4f();
  #end
  for (var tap = 0u; tap < part.taps.x * part.taps.y; tap++) {
    let down = tap / part.taps.y;
    let right = tap % part.taps.y;
    var at: array<u32, 8>;
    var inside: array<bool, 8>;
    for (var i = 0u; i < ROWS / LANES; i++) {
      // Beyond the upper and left edge these wrap around and are no less beyond the lower and right one.
      let h = select(top[i] + down, top[i] - down, TRANSPOSE == 1);
      let w = select(left[i] + right, left[i] - right, TRANSPOSE == 1);
      inside[i] = h < p.inHeight && w < p.inWidth;
      at[i] = select(0u, ((above[i] + h) * p.inWidth + w) * p.width, inside[i]);
    }
    var number = tap;
    if (TRANSPOSE == 1) {
      let first = (vec2u(part.top, part.left) + p.padding) % p.stride;
      number = (first.x + down * p.stride) * p.size + first.y + right * p.stride;
    }
    var b = number * p.width * p.columns + bColumn;
    for (var k = 0u; k < p.width; k++) {
      var x: array<vec4f, 8>;
      for (var i = 0u; i < ROWS / LANES; i++) { x[i] = select(vec4f(), vec4f(images[at[i] + k]), inside[i]); }
      let z = mat4x4f(
        vec4f(weight[b]),
        vec4f(weight[b + bStride]),
        vec4f(weight[b + 2 * bStride]),
        vec4f(weight[b + 3 * bStride]),
      );
      b += select(4 * bStride, 1, TRANSPOSE == 1);
      #repeat q 0 8
        let x${q} = mat4x4f(
          #repeat i 0 4
            subgroupBroadcast(x[${4 * q + i}u / LANES], ${4 * q + i}u % LANES),
          #end
        );
        #repeat i 0 4
          c${4 * q + i} += product(x${q}[${i}], z);
        #end
      #end
    }
  }

  if (column >= p.columns) { return; }
  // A loop, though it has to move the sums about: written out, stores take long to compile.
  for (var r = row; r < min(row + ROWS, rows); r += 4) {
    store(part, rows, r, column, c0);
    store(part, rows, r + 1, column, c1);
    store(part, rows, r + 2, column, c2);
    store(part, rows, r + 3, column, c3);
    #repeat r 0 28
      c${r} = c${r + 4};
    #end
  }
}

fn store(part: Part, rows: u32, row: u32, column: u32, value: vec4f) {
  if (row >= rows) { return; }
  var pixel = row;
  if (TRANSPOSE == 1) {
    let line = row / part.width;
    let h = line % part.height * p.stride + part.top;
    pixel = (line / part.height * p.outHeight + h) * p.outWidth + row % part.width * p.stride + part.left;
  }
  y[(pixel * p.columns + column) / 4] = vec4<T1>(value);
}

// The pixels of the result that one product makes.
struct Part {
  top: u32, // of the first
  left: u32,
  height: u32, // how many lines of an image
  width: u32,
  taps: vec2u, // that see each, down and across
}

fn partOf(number: u32) -> Part {
  if (TRANSPOSE == 0) { return Part(0, 0, p.outHeight, p.outWidth, vec2u(p.size)); }
  let first = vec2u(number / p.stride, number % p.stride);
  let whole = vec2u(p.outHeight, p.outWidth);
  let count = (max(whole, first) - first + p.stride - 1) / p.stride;
  let tap = (first + p.padding) % p.stride;
  return Part(first.x, first.y, count.x, count.y, (max(vec2u(p.size), tap) - tap + p.stride - 1) / p.stride);
}

// One row's four channels times this lane's 4 x 4 block of the weight.
fn product(x: vec4f, z: mat4x4f) -> vec4f {
  if (TRANSPOSE == 1) { return x * z; }
  return z * x;
}
