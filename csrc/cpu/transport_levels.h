// Costs of points, the iteration on costs, and its plan, for cpu/each_level.h. No include guard.

#include "cpu/transport_points_kernel.h"
// the costs that this reads
#include "cpu/transport_kernel.h"
// the potentials that this makes a plan of
#include "cpu/transport_density_kernel.h"
