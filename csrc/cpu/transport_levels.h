// Costs of points and their gradient, the iteration on costs, and its plan, for cpu/each_level.h. No include
// guard.

#include "cpu/transport_points_kernel.h"
// the products that those include
#include "cpu/transport_points_gradient_kernel.h"
// the costs that this reads
#include "cpu/transport_kernel.h"
// the potentials that this makes a plan of
#include "cpu/transport_density_kernel.h"
