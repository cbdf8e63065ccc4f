// A loss from features to its gradient, for cpu/each_level.h. No include guard.

#include "cpu/subspace_levels.h"
// after the rotations, which both need
#include "core/path.h"
// after both
#include "cpu/geodesic_kernel.h"
// after what it shares with
#include "cpu/geodesic_backward_kernel.h"
// after all of them
#include "cpu/geodesic_loss_kernel.h"
