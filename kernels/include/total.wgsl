var<workgroup> partial: array<f32, WORKGROUP>;

// The sum of `value` over the workgroup, the same in every invocation.
fn total(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  #define merge partial[lane] += partial[lane + half];
  #include "halves"
  return partial[0];
}
