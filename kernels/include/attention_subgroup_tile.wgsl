// Tiles of 32 rows in the registers of a subgroup, and their products.

const LANES = 8u; // in a subgroup: 4, 8 or 16
const BLOCKS = 1u; // of 4 * LANES features, 4 at most
const ROWS = 32u;

// 32 rows by four columns a lane. A column of a matrix is a row.
struct Tile {
  #repeat r 0 8
    c${r}: mat4x4f,
  #end
}

// One value a row.
struct Values {
  #repeat r 0 8
    c${r}: vec4f,
  #end
}

// The share of the rows that a lane loads: rows lane, LANES + lane, ...
alias Share = array<vec4f, ROWS / LANES>;

// The matrix whose columns are those of `x` in lane `from`.
fn shuffled(x: mat4x4f, lane: u32) -> mat4x4f {
  return mat4x4f(
    subgroupShuffle(x[0], lane), subgroupShuffle(x[1], lane), subgroupShuffle(x[2], lane), subgroupShuffle(x[3], lane),
  );
}

// The columns of four lanes.
fn gathered(x: vec4f, lane: u32) -> mat4x4f {
  return mat4x4f(
    subgroupShuffle(x, lane), subgroupShuffle(x, lane + 1u), subgroupShuffle(x, lane + 2u), subgroupShuffle(x, lane + 3u),
  );
}

// t += rows of the lanes' shares (four elements each) times the transpose of z, whose columns are four rows more.
fn add_dots(t: ptr<function, Tile>, x: ptr<function, Share>, z: mat4x4f) {
  let zt = transpose(z);
  #repeat r 0 8
    (*t).c${r} += zt * gathered((*x)[${4 * r}u / LANES], ${4 * r}u % LANES);
  #end
}

// t += the four columns of w that `lane` holds, times four rows of which this lane holds four columns.
fn add_weighted(t: ptr<function, Tile>, w: ptr<function, Tile>, lane: u32, rows: mat4x4f) {
  #repeat r 0 8
    (*t).c${r} += rows * shuffled((*w).c${r}, lane);
  #end
}

fn shift(t: ptr<function, Tile>) {
  #repeat r 0 7
    (*t).c${r} = (*t).c${r + 1};
  #end
}

// Four rows of vec4s of qkv, `stride` apart; those past the last one are the last one.
fn block(i: u32, stride: u32, last: u32) -> mat4x4f {
  return mat4x4f(
    vec4f(qkv[i]), vec4f(qkv[i + min(1u, last) * stride]),
    vec4f(qkv[i + min(2u, last) * stride]), vec4f(qkv[i + min(3u, last) * stride]),
  );
}
