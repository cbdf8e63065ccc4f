// Faulty kernels, which cuda_on_host.h must find out, and sound ones beside them:
// tests/kernels/test_cuda_on_host.py.

#include "cuda_on_host.h"
// the names that it stands in for
#include "cuda/device.h"

namespace {

using namespace geokernels;

template <class T = int>
T* shown() {
  return reinterpret_cast<T*>(block_memory());
}

enum class Between { nothing, shuffle, warp_barrier, block_barrier };

void pause(Between what) {
  if (what == Between::shuffle) __shfl_xor_sync(kAllLanes, 1, 1);
  if (what == Between::warp_barrier) __syncwarp();
  if (what == Between::block_barrier) __syncthreads();
}

// Thread i passes on what the thread `away` from it has written.
void pass_on(int* out, Between what, int away) {
  const int i = threadIdx.x;
  shown()[i] = -1;
  __syncthreads();
  shown()[i] = i;
  pause(what);
  out[i] = shown()[(i + away) % blockDim.x];
}

// Thread i overwrites what the thread `away` from it has read.
void overwrite(int* out, Between what, int away) {
  const int i = threadIdx.x;
  shown()[i] = i;
  __syncthreads();
  out[i] = shown()[(i + away) % blockDim.x];
  pause(what);
  shown()[i] = -1;
}

void sum_block(double* out) {
  double* spare = shown<double>();
  double sums[8];
  for (int k = 0; k < 8; ++k) sums[k] = (k + 1) * lane();
  const double whole = block_sum(double(threadIdx.x), spare), each = sum_each<8>(sums);
  const bool agreed = __syncthreads_and(threadIdx.x < blockDim.x),
             split = __syncthreads_and(threadIdx.x != 5);
  out[threadIdx.x] = agreed && !split ? whole + 1e6 * each : -1;
}

// Who comes when: thread 100 b + i of block b, before and after a barrier.
void write_down_turns(int* out, int& count) {
  for (int k = 0; k < 2; ++k) {
    const cuda_on_host::Unwatched own;
    out[count++] = 100 * blockIdx.x + threadIdx.x;
    __syncthreads();
  }
}

}  // namespace

extern "C" {

void pass_on_in_order(int* out, int what, int away, int order) {
  cuda_on_host::launch(1, 64, 64 * sizeof(int), order, [=] { pass_on(out, Between(what), away); });
}

void overwrite_in_order(int* out, int what, int away, int order) {
  cuda_on_host::launch(1, 64, 64 * sizeof(int), order, [=] { overwrite(out, Between(what), away); });
}

// Within a warp.
void warp_passes_on(int* out, int what) {
  cuda_on_host::launch(1, 32, 32 * sizeof(int), 0, [=] { pass_on(out, Between(what), 1); });
}

void sum(double* out, int order) {
  cuda_on_host::launch(1, 64, 2 * sizeof(double), order, [=] { sum_block(out); });
}

void turns(int* out, int order) {
  int count = 0;
  cuda_on_host::launch(3, 64, 0, order, [&] { write_down_turns(out, count); });
}

// Block b writes where its neighbour does, or only beside it.
void blocks(int* out, int apart) {
  cuda_on_host::launch(3, 32, 0, 0, [=] {
    if (threadIdx.x < 2) out[blockIdx.x * apart + threadIdx.x] = int(blockIdx.x);
  });
}

// What one block writes is read by the next.
void block_after_block(int* out) {
  cuda_on_host::launch(3, 32, 0, 0, [=] {
    if (threadIdx.x == 0) out[blockIdx.x + 1] = out[blockIdx.x] + 1;
  });
}

// Two launches, one after the other, may share memory.
void launch_after_launch(int* out) {
  cuda_on_host::launch(1, 32, 0, 0, [=] { out[threadIdx.x] = int(threadIdx.x); });
  cuda_on_host::launch(1, 32, 0, 0, [=] { out[32 + threadIdx.x] = out[31 - threadIdx.x]; });
}

// Neighbours write halves of a word; where asked, some read all of it.
void half_words(uint16_t* out, int whole) {
  cuda_on_host::launch(1, 32, 128, 0, [=] {
    const int i = threadIdx.x;
    shown()[i] = 0;
    __syncthreads();
    shown<uint16_t>()[i] = uint16_t(i);
    out[i] = whole ? uint16_t(shown()[i / 2]) : shown<uint16_t>()[i];
  });
}

// What becomes of NaN, as on a GPU: fmax and fmin drop it (FMNMX), comparisons are false (FSETP), and so a
// lane of warp_max that has it keeps it, while others pass it by.
void choose(float* out, const float* given) {
  cuda_on_host::launch(1, 32, 0, 0, [=] {
    const float mine = given[threadIdx.x], nan = given[5];
    out[threadIdx.x] = warp_max(mine);
    out[32 + threadIdx.x] = warp_max(std::fmax(mine, 0.0f));
    const float chosen[] = {std::fmax(nan, 1.0f), std::fmax(1.0f, nan), std::fmin(nan, 1.0f),
                            std::fmax(nan, nan),  nan > 1 ? nan : 1,    1 > nan ? 1 : nan,
                            float(!(nan > 0)),    float(nan == nan)};
    if (threadIdx.x < 8) out[64 + threadIdx.x] = chosen[threadIdx.x];
  });
}

void half_a_warp_shuffles() {
  cuda_on_host::launch(1, 32, 0, 0, [] {
    if (threadIdx.x < 16) __shfl_xor_sync(kAllLanes, 1, 1);
  });
}

void half_a_warp_waits_and_half_shuffles() {
  cuda_on_host::launch(1, 32, 0, 0, [] {
    if (threadIdx.x < 16) return __syncwarp();
    __shfl_xor_sync(kAllLanes, 1, 1);
  });
}

void one_thread_leaves_before_the_barrier() {
  cuda_on_host::launch(1, 64, 0, 0, [] {
    if (threadIdx.x != 40) __syncthreads();
  });
}

void writes_beyond_its_memory() {
  cuda_on_host::launch(1, 32, 128, 0, [] { shown<float>()[threadIdx.x + 1] = 0; });
}

void reads_beyond_its_memory(float* out) {
  cuda_on_host::launch(1, 32, 128, 0, [=] {
    shown<float>()[threadIdx.x] = 0;
    if (threadIdx.x == 31) out[0] = shown<float>()[threadIdx.x + 1];
  });
}

void reads_what_nobody_wrote(float* out) {
  cuda_on_host::launch(1, 32, 128, 0, [=] {
    if (threadIdx.x != 7) shown<float>()[threadIdx.x] = 0;
    __syncthreads();
    out[threadIdx.x] = shown<float>()[31 - threadIdx.x];
  });
}
}
