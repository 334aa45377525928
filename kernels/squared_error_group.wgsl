// Squared error, one workgroup a row, for GPUs: neighbouring invocations read neighbouring elements.

const WORKGROUP = 128u;

#include "total"
#include "rows_group"
#include "squared_error"
