// Words of a kernel whose rows are summed up: here one invocation takes a row, four elements at a time. See rows_plain.wgsl.

#include "rows_plain"
#include "vec4s"

#define total(sum) dot(${sum}, vec4f(1))
#define count f32(4u * p.width)
