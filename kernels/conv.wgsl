// Convolution as a matrix product: the patches that a window sees, laid out as rows (im2col), and back (col2im).
// Images are [samples, height, width, channels]; a row of `columns` is one position of the window, [size, size, channels].
// Both directions gather: each element is written once, by one invocation, so nothing needs atomics.

struct Parameters {
  rows: u32, // columns: positions of the window times its taps; images: pixels
  width: u32, // channels, in elements, or vec4s (columns4, images4)
  first: u32, // sample of the images that row 0 belongs to
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

@group(0) @binding(0) var<uniform> p: Parameters;
#include "rows"

// Where the channels of the pixel begin that this tap of the window sees, or outside the image.
struct Place {
  start: u32,
  inside: bool,
}

fn seen(row: u32) -> Place {
  let taps = p.size * p.size;
  let tap = row % taps;
  let pixel = row / taps;
  let line = pixel / p.outWidth;
  // Beyond the upper and left edge these wrap around and are no less beyond the lower and right one.
  let h = line % p.outHeight * p.stride + tap / p.size - p.padding;
  let w = pixel % p.outWidth * p.stride + tap % p.size - p.padding;
  let inside = h < p.inHeight && w < p.inWidth;
  let sample = p.first + line / p.outHeight;
  return Place(select(0u, ((sample * p.inHeight + h) * p.inWidth + w) * p.width, inside), inside);
}

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> y${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> x${_4}: array<${of(T2)}>;

// columns[pixel, tap, c] = images[the pixel that the tap sees, c], 0 outside
@compute @workgroup_size(COLUMNS, ROWS)
fn columns${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let place = seen(row);
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    y${_4}[row * p.width + i] = ${of(T1)}(select(${zero}, ${V}(x${_4}[place.start + i]), place.inside));
  }
}

// images[pixel, c] = sum of columns[., ., c] over the taps that see the pixel
@compute @workgroup_size(COLUMNS, ROWS)
fn images${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let line = row / p.inWidth;
  let sample = line / p.inHeight;
  let h = line % p.inHeight + p.padding;
  let w = row % p.inWidth + p.padding;
  let start = (p.first * p.inHeight * p.inWidth + row) * p.width;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    var sum = ${zero};
    for (var a = h % p.stride; a < p.size; a += p.stride) {
      let oh = (h - a) / p.stride;
      for (var b = w % p.stride; b < p.size; b += p.stride) {
        let ow = (w - b) / p.stride;
        if (a <= h && b <= w && oh < p.outHeight && ow < p.outWidth) {
          let pixel = (sample * p.outHeight + oh) * p.outWidth + ow;
          sum += ${V}(x${_4}[((pixel * p.size + a) * p.size + b) * p.width + i]);
        }
      }
    }
    y${_4}[start + i] = ${of(T1)}(sum);
  }
}
#end
