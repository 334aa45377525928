// Numbers that are not finite, told and kept by their bits. WGSL may assume that there are none, and drivers make use of it:
// max(), min() and clamp() return their other argument where one is NaN, and x * 0 and x - x may be 0 whatever x is. On
// SwiftShader exp() of NaN is infinite and log() of it 89; on lavapipe they are NaN.
// Sums and products keep a NaN by themselves. What compares must use one of these; the running maximum of a softmax alone may
// drop a NaN, because the sum of exponentials is not finite then, which is looked at once a row.

const INFINITY = 0x7f800000u; // its bits: more, but for the sign, is a NaN
const MINUS_INFINITY = -0x800000; // its bits as an i32: those of every number below 0 are less

fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > INFINITY; }

fn is_nan4(x: vec4f) -> vec4<bool> { return (bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(INFINITY); }

fn is_finite(x: f32) -> bool { return (bitcast<u32>(x) & INFINITY) != INFINITY; }

// max(x, 0), NaN for NaN.
fn rectified(x: f32) -> f32 { return select(x, 0.0, bitcast<i32>(x) <= MINUS_INFINITY); }

fn rectified4(x: vec4f) -> vec4f { return select(x, vec4f(), bitcast<vec4i>(x) <= vec4i(MINUS_INFINITY)); }

// Whether rectified(x) passes a gradient on: above 0, and, as in PyTorch, for NaN.
fn passes(x: f32) -> bool { return x > 0.0 || is_nan(x); }

fn passes4(x: vec4f) -> vec4<bool> { return (x > vec4f()) | is_nan4(x); }

// x if it is as it should be, else NaN.
fn nan_unless(x: f32, sound: bool) -> f32 { return select(bitcast<f32>(bitcast<u32>(x) | 0x7fc00000u), x, sound); }

// 1 / sqrt(mean of squares + epsilon). Where the squares have overflowed, NaN: 0 would make finite results of what is lost.
fn reciprocal_deviation(mean_square: f32, epsilon: f32) -> f32 {
  return nan_unless(1.0 / sqrt(mean_square + epsilon), is_finite(mean_square));
}
