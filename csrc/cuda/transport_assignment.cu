// Assignment on the GPU: how its kernel, cuda/transport_assignment_kernel.h, is launched, and registration.

#include <algorithm>
#include <limits>

#include "cuda/launch.h"
#include "cuda/transport_assignment_kernel.h"
#include "host/assignment.h"
#include "host/operators.h"

namespace geokernels {
namespace {

constexpr int64_t kColumnsOfAWarp = 128;  // their state fits in every GPU's shared memory

// By blocks of several warps.
template <int kThreads>
void launch_assignment(const AssignmentBatch& batch, const Tensor& like, const Device& device) {
  const int64_t state = AssignmentState::bytes(batch.rows, batch.columns);
  const int64_t memory = sizeof(AssignmentShared<kThreads>);
  if (memory + state <= device.block_memory()) {
    launch(assignment_kernel<kThreads, false>, batch.problems, kThreads, memory + state, device.stream(),
           batch, nullptr);
    return;
  }
  const int64_t blocks = std::min(batch.problems, 2 * device.property(cudaDevAttrMultiProcessorCount));
  Tensor far = fresh(like, {blocks, state}, ScalarType::Byte);
  launch(assignment_kernel<kThreads, true>, blocks, kThreads, memory, device.stream(), batch,
         write<unsigned char>(far));
}

Tensor assignment(const Tensor& cost) {
  const Device device(cost);
  return assignment_of_batch<double>(
      cost, [&](const double* costs, int64_t problems, int64_t rows, int64_t columns, int64_t* chosen) {
        STD_TORCH_CHECK(columns <= std::numeric_limits<int>::max(), "geokernels: fewer columns");
        const AssignmentBatch batch{costs, problems, int(rows), int(columns), chosen};
        if (columns <= kColumnsOfAWarp)
          launch(assignment_kernel<kWarp, false>, problems, kWarp,
                 sizeof(AssignmentShared<kWarp>) + AssignmentState::bytes(rows, columns), device.stream(),
                 batch, nullptr);
        else
          launch_assignment<8 * kWarp>(batch, cost, device);
      });
}

}  // namespace
}  // namespace geokernels

GEOKERNELS_OPERATORS(CUDA, m) { m.impl("assignment", TORCH_BOX(&geokernels::assignment)); }
