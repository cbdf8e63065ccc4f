// Both directions of the bases, for cpu/each_level.h. No include guard.

#include "core/products.h"
// after the products they are made of
#include "core/jacobi.h"
// after both
#include "cpu/subspace_kernel.h"
