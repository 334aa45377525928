// GELU (Hendrycks, Gimpel 2016), x * P(normal < x): exact, or with TANH = 1 its approximation
//   x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))).
// Each invocation goes over the tensor in strides of the grid.

struct Parameters {
  count: u32, // of elements, or of vec4s (forward4, backward4)
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

const WORKGROUP = 64u;
const TANH = 0u;

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> out${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> x${_4}: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> dout${_4}: array<${of(T3)}>;

@compute @workgroup_size(WORKGROUP)
fn forward${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    let value = ${V}(x${_4}[i]);
    out${_4}[i] = ${of(T1)}(value * share(vec4f(value))${_x});
  }
}

@compute @workgroup_size(WORKGROUP)
fn backward${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    out${_4}[i] = ${of(T1)}(${V}(dout${_4}[i]) * slope(vec4f(${V}(x${_4}[i])))${_x});
  }
}
#end

// GELU(x) / x. The approximation's (1 + tanh(u)) / 2 is the logistic function of 2u, which has no 0 / 0 at its ends.
fn share(x: vec4f) -> vec4f {
  if (TANH != 0u) { return 1.0 / (1.0 + exp(exponent(x))); }
  return 0.5 + 0.5 * erf(x * 0.7071067811865476);
}

// -2u
fn exponent(x: vec4f) -> vec4f { return -1.5957691216057308 * (x + 0.044715 * x * x * x); }

// GELU'(x)
fn slope(x: vec4f) -> vec4f {
  if (TANH != 0u) {
    let odds = exp(min(exponent(x), vec4f(80))); // finite
    let s = 1.0 / (1.0 + odds);
    // 1 - s is odds * s, which does not cancel where s is nearly 1.
    return s + x * s * (odds * s) * (1.5957691216057308 + 0.21406859881350767 * x * x);
  }
  return share(x) + x * 0.3989422804014327 * exp(-0.5 * x * x);
}

// Rational approximation, the coefficients of Eigen's erf() for float: off by less than 3e-7 everywhere, where it is
// measured in tests/ops/gelu.test.ts. Beyond 4 the function is 1 to the last bit.
fn erf(x: vec4f) -> vec4f {
  let c = clamp(x, vec4f(-4), vec4f(4));
  let s = c * c;
  var above = s * -2.72614225801306e-10 + 2.77068142495902e-8;
  above = above * s - 2.10102402082508e-6;
  above = above * s - 5.69250639462346e-5;
  above = above * s - 7.34990630326855e-4;
  above = above * s - 2.95459980854025e-3;
  above = above * s - 1.60960333262415e-2;
  var below = s * -1.45660718464996e-5 - 2.13374055278905e-4;
  below = below * s - 1.68282697438203e-3;
  below = below * s - 7.37332916720468e-3;
  below = below * s - 1.42647390514189e-2;
  return c * above / below;
}
