// Squared error, one invocation a row, four elements a load; the width divides by 4.

const WORKGROUP = 64u;

#include "rows_vec4"
#include "squared_error"
