// Tiles of 32 rows in the registers of a subgroup, and their products.

const LANES = 8u; // in a subgroup: 4, 8 or 16
const BLOCKS = 1u; // of 4 * LANES features, 4 at most
const ROWS = 32u;

// 32 rows by four columns a lane. A column of a matrix is a row.
struct Tile {
  c0: mat4x4f, c1: mat4x4f, c2: mat4x4f, c3: mat4x4f,
  c4: mat4x4f, c5: mat4x4f, c6: mat4x4f, c7: mat4x4f,
}

// One value a row.
struct Values {
  c0: vec4f, c1: vec4f, c2: vec4f, c3: vec4f,
  c4: vec4f, c5: vec4f, c6: vec4f, c7: vec4f,
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
  (*t).c0 += zt * gathered((*x)[0u / LANES], 0u % LANES);
  (*t).c1 += zt * gathered((*x)[4u / LANES], 4u % LANES);
  (*t).c2 += zt * gathered((*x)[8u / LANES], 8u % LANES);
  (*t).c3 += zt * gathered((*x)[12u / LANES], 12u % LANES);
  (*t).c4 += zt * gathered((*x)[16u / LANES], 16u % LANES);
  (*t).c5 += zt * gathered((*x)[20u / LANES], 20u % LANES);
  (*t).c6 += zt * gathered((*x)[24u / LANES], 24u % LANES);
  (*t).c7 += zt * gathered((*x)[28u / LANES], 28u % LANES);
}

// t += the four columns of w that `lane` holds, times four rows of which this lane holds four columns.
fn add_weighted(t: ptr<function, Tile>, w: ptr<function, Tile>, lane: u32, rows: mat4x4f) {
  (*t).c0 += rows * shuffled((*w).c0, lane);
  (*t).c1 += rows * shuffled((*w).c1, lane);
  (*t).c2 += rows * shuffled((*w).c2, lane);
  (*t).c3 += rows * shuffled((*w).c3, lane);
  (*t).c4 += rows * shuffled((*w).c4, lane);
  (*t).c5 += rows * shuffled((*w).c5, lane);
  (*t).c6 += rows * shuffled((*w).c6, lane);
  (*t).c7 += rows * shuffled((*w).c7, lane);
}

fn shift(t: ptr<function, Tile>) {
  (*t).c0 = (*t).c1; (*t).c1 = (*t).c2; (*t).c2 = (*t).c3; (*t).c3 = (*t).c4;
  (*t).c4 = (*t).c5; (*t).c5 = (*t).c6; (*t).c6 = (*t).c7;
}
