// Squared error, the plain reference: one invocation a row.

const WORKGROUP = 64u;

#include "rows_plain"
#include "squared_error"
