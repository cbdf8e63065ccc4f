// Faulty kernels, which cuda_on_host.h must find out: tests/kernels/test_cuda_on_host.py.

#include "cuda_on_host.h"
// the names that it stands in for
#include "cuda/device.h"

namespace {

using namespace geokernels;

// Thread i passes on what thread i - 1 has written, with or without waiting for it.
void pass_on(int* out, bool wait) {
  int* shown = reinterpret_cast<int*>(block_memory());
  const int i = threadIdx.x;
  shown[i] = i;
  if (wait) __syncthreads();
  out[i] = i == 0 ? 0 : shown[i - 1];
}

void sum_block(double* out) {
  double* spare = reinterpret_cast<double*>(block_memory());
  double sums[8];
  for (int k = 0; k < 8; ++k) sums[k] = (k + 1) * lane();
  const double whole = block_sum(double(threadIdx.x), spare), each = sum_each<8>(sums);
  const bool agreed = __syncthreads_and(threadIdx.x < blockDim.x),
             split = __syncthreads_and(threadIdx.x != 5);
  out[threadIdx.x] = agreed && !split ? whole + 1e6 * each : -1;
}

}  // namespace

extern "C" {

void pass_on_in_order(int* out, int wait, int order) {
  cuda_on_host::launch(1, 64, 64 * sizeof(int), order, [=] { pass_on(out, wait); });
}

void sum(double* out, int order) {
  cuda_on_host::launch(1, 64, 2 * sizeof(double), order, [=] { sum_block(out); });
}

void half_a_warp_shuffles() {
  cuda_on_host::launch(1, 32, 0, 0, [] {
    if (threadIdx.x < 16) __shfl_xor_sync(kAllLanes, 1, 1);
  });
}

void one_thread_leaves_before_the_barrier() {
  cuda_on_host::launch(1, 64, 0, 0, [] {
    if (threadIdx.x != 40) __syncthreads();
  });
}

void writes_beyond_its_memory() {
  cuda_on_host::launch(1, 32, 128, 0, [] { reinterpret_cast<float*>(block_memory())[threadIdx.x + 1] = 0; });
}
}
