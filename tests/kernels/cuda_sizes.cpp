// Bytes of shared memory that kernels ask for without looking at the device:
// tests/kernels/test_cuda_sizes.py.

#include "cuda_on_host.h"
// the names that it stands in for
#include "cuda/transport_assignment_kernel.h"
#include "cuda/transport_points_gradient_kernel.h"

using namespace geokernels;

extern "C" {

int64_t point_gradient_kernel_float() { return sizeof(PointGradient<float>::Shared); }
int64_t point_gradient_kernel_double() { return sizeof(PointGradient<double>::Shared); }

// of one warp, with as many columns as it takes
int64_t assignment_kernel_of_a_warp() {
  return sizeof(AssignmentShared<kWarp>) + AssignmentState::bytes(128, 128);
}
// of eight warps, with their state in device memory
int64_t assignment_kernel_of_warps() { return sizeof(AssignmentShared<8 * kWarp>); }
}
