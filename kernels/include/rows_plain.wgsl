// Words of a kernel whose rows are summed up: here one invocation takes a row, element by element.

#include "elements"

#define place @builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u
#define row id.x + id.y * n.x * WORKGROUP
// An invocation's steps along the row, as in for (var i = first; i < p.width; next).
#define first 0u
#define next i++
// The row's sum, from what an invocation has added up; and the row's elements.
#define total(sum) ${sum}
#define count f32(p.width)
// What one invocation writes for the row.
#define once(statement) ${statement}
