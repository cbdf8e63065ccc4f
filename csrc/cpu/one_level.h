// One SIMD level: what kernels are made of, then the file that GEOKERNELS_KERNEL names. No include guard:
// cpu/each_level.h includes this file for every level.

#include "core/simd.h"
// on its vectors
#include "core/exponential.h"
#include "core/jacobi.h"
#include "core/path.h"
#include "core/products.h"
// on these
#include "core/bidiagonal.h"
#include "core/scaling.h"
#include "core/transport_density.h"
// on all of these
#include GEOKERNELS_KERNEL

#undef GEOKERNELS_LEVEL
#undef GEOKERNELS_VECTOR_BYTES
#undef GEOKERNELS_REGISTERS
