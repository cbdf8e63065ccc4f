// What every kernel uses of its block: lanes, sums, shared memory.
//
// Compiled by nvcc, and for tests by the host compiler with tests/kernels/cuda_on_host.h, where the same
// kernels run thread by thread. All memory of a block is dynamic, so that tests can poison it.

#pragma once

#include <cstdint>
#include <limits>

namespace geokernels {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

template <class T>
__host__ __device__ constexpr T infinity() {
  return std::numeric_limits<T>::infinity();
}

__device__ inline int lane() { return int(threadIdx.x) % kWarp; }
__device__ inline int warp() { return int(threadIdx.x) / kWarp; }

#ifdef GEOKERNELS_CUDA_ON_HOST
inline unsigned char* block_memory() { return cuda_on_host::block_memory(); }
#else
__device__ inline unsigned char* block_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}
#endif

template <class T>
__device__ inline T warp_sum(T mine) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) mine += __shfl_xor_sync(kAllLanes, mine, lanes);
  return mine;
}

template <class T>
__device__ inline T warp_max(T mine) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    T other = __shfl_xor_sync(kAllLanes, mine, lanes);
    mine = other > mine ? other : mine;
  }
  return mine;
}

// Every lane has R numbers, R a power of two, and gets the sum over all lanes of number lane % R.
template <int R, class T>
__device__ inline T sum_each(T (&x)[R]) {
#pragma unroll
  for (int half = R / 2; half > 0; half /= 2) {
    const bool upper = lane() & half;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      T kept = upper ? x[i + half] : x[i], given = upper ? x[i] : x[i + half];
      x[i] = kept + __shfl_xor_sync(kAllLanes, given, half);
    }
  }
  T total = x[0];
  for (int lanes = R; lanes < kWarp; lanes *= 2) total += __shfl_xor_sync(kAllLanes, total, lanes);
  return total;
}

// The sum over the block, known to every thread afterwards; spare: a number for each warp, in shared memory.
template <class T>
__device__ inline T block_sum(T mine, T* spare) {
  mine = warp_sum(mine);
  __syncthreads();  // whatever was in spare has been read
  if (lane() == 0) spare[warp()] = mine;
  __syncthreads();
  T whole = 0;
#pragma unroll 1
  for (int w = 0; w < int(blockDim.x) / kWarp; ++w) whole += spare[w];
  return whole;
}

}  // namespace geokernels
