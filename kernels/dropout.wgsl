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
@group(0) @binding(3) var<storage, read> seed: array<u32>; // [2]: of the step, first sample of the micro-batch

#include "rows"

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> out${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> x${_4}: array<${of(T2)}>;

@compute @workgroup_size(COLUMNS, ROWS)
fn apply${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let key = key_of(row);
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let at = row * p.width + i;
    let keeps = hash(key, vec4u(${elements(i)}))${_x} >= ${U}(p.threshold);
    out${_4}[at] = ${of(T1)}(${V}(x${_4}[at]) * select(${zero}, ${V}(p.keep), keeps));
  }
}
#end

fn key_of(row: u32) -> vec4u {
  return mix32(mix32(vec4u(seed[0] ^ p.salt)) + seed[1] * p.rowsPerSample + row);
}

fn hash(key: vec4u, column: vec4u) -> vec4u { return mix32(key ^ (column * 0x9e3779b9u)); }

#include "mix32"
