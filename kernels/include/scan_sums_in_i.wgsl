// Words of a scan's backward that adds up what W needs of a sequence as it goes. See scan_sums_in_w.wgsl.

// Behind the name of the entry point.
#define _left
// What is done for the sums.
#define sum(statement) ${statement}
// What is left for W to make them from.
#define leave(statement)
