// Words of a scan's backward that leaves the sums to W: none are made, and what W makes them from is stored.

#define _left _left
#define sum(statement)
#define leave(statement) ${statement}
