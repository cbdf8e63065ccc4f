// The assignment of csrc/cuda, run on the host for tests/kernels/test_cuda_assignment.py.

#include "cuda_on_host.h"
// the names that it stands in for
#include <vector>

#include "cuda/transport_assignment_kernel.h"

namespace {

using namespace geokernels;

template <int kThreads>
void run(const AssignmentBatch& batch, int blocks, bool far, int order) {
  const int64_t state = AssignmentState::bytes(batch.rows, batch.columns);
  std::vector<unsigned char> memory(far ? blocks * state : 0, 0xff);
  cuda_on_host::launch(blocks, kThreads, sizeof(AssignmentShared<kThreads>) + (far ? 0 : state), order, [&] {
    if (far)
      assignment_kernel<kThreads, true>(batch, memory.data());
    else
      assignment_kernel<kThreads, false>(batch, nullptr);
  });
}

}  // namespace

// By blocks of one, two or eight warps, with their state in shared memory or far.
extern "C" void assignment(const double* cost, int64_t* chosen, int64_t problems, int64_t rows,
                           int64_t columns, int64_t warps, int64_t blocks, int64_t far, int64_t order) {
  const AssignmentBatch batch{cost, problems, int(rows), int(columns), chosen};
  if (warps == 1)
    run<kWarp>(batch, int(blocks), far, int(order));
  else if (warps == 2)
    run<2 * kWarp>(batch, int(blocks), far, int(order));
  else
    run<8 * kWarp>(batch, int(blocks), far, int(order));
}
