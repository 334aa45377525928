// Words of a kernel whose rows are summed up: here one workgroup takes a row. See rows_plain.wgsl.

#include "rows_plain"

#define place @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
#define row group.x + group.y * n.x
#define first lane
#define next i += WORKGROUP
#define total(sum) total(lane, ${sum})
#define once(statement) if (lane == 0u) { ${statement} }
