// Kernels that treat the elements of rows one by one: a workgroup is COLUMNS x ROWS invocations, each of which goes along its
// row in steps of COLUMNS.

const COLUMNS = 1u;
const ROWS = 64u;

#define place @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_id) lane: vec3u,
#define row (group.x + group.y * n.x) * ROWS + lane.y
