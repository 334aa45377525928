// Words of what takes four neighbouring elements at a time, see elements.wgsl.

#define _4 4
#define V vec4f
#define U vec4u
#define zero vec4f()
#define of(T) vec4<${T}>
#define elements(i) 4u * ${i} + vec4u(0, 1, 2, 3)
#define _x
