// Both directions of the geodesic cosine, for cpu/each_level.h. No include guard.

#include "core/products.h"
// after the products they are made of
#include "core/jacobi.h"
#include "core/path.h"
// after both
#include "cpu/geodesic_kernel.h"
// after what it shares with
#include "cpu/geodesic_backward_kernel.h"
