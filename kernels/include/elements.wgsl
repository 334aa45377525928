// Words of what takes one element at a time, for what is written once for elements and for vec4s.

// Behind the names of entry points and buffers.
#define _4
#define V f32
#define U u32
#define zero 0.0
// A buffer's element whose numbers are of type T.
#define of(T) ${T}
// The numbers of the elements in step i.
#define elements(i) ${i}
// Behind what was computed for four, since functions of vec4f serve both.
#define _x .x
