// Both directions of the geodesic cosine, for cpu/each_level.h. No include guard.

#include "cpu/geodesic_kernel.h"
// after what it shares with
#include "cpu/geodesic_backward_kernel.h"
