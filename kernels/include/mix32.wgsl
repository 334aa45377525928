// "lowbias32" of C. Wellons' hash prospector: every input bit flips each output bit in half of all cases, to 0.2 %.
fn mix32(value: vec4u) -> vec4u {
  var h = value;
  h = (h ^ (h >> vec4u(16))) * 0x7feb352du;
  h = (h ^ (h >> vec4u(15))) * 0x846ca68bu;
  return h ^ (h >> vec4u(16));
}
