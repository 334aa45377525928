// Words of what takes four neighbouring elements at a time, see elements.wgsl.

#define _4 4
#define V vec4f
#define zero vec4f()
#define of(T) vec4<${T}>
