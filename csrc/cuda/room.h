// Where a block works: its shared memory, or where that is too small, device memory that the L2 cache holds.

#pragma once

#include "cuda/device.h"

namespace geokernels {

// Kernels are compiled for each: the compiler must know that memory is shared to address it as such. kBlocks:
// how many a multiprocessor should hold by their registers. With two, float64 would have to spill, and
// kernels on device memory, which are the last resort for large problems, as well.
template <class T>
struct Near {
  static constexpr int kBlocks = sizeof(T) == 4 ? 2 : 1;

  __device__ T* get() const { return reinterpret_cast<T*>(block_memory()); }
};

template <class T>
struct Far {
  static constexpr int kBlocks = 1;

  T* memory;
  int64_t size;  // numbers a block

  __device__ T* get() const { return memory + blockIdx.x * size; }
};

// Both instances of a kernel.
#define GEOKERNELS_NEAR_AND_FAR(kernel, T) kernel<T, Near<T>>, kernel<T, Far<T>>

// So many numbers, in whole 16 bytes.
constexpr int64_t whole_packs(int64_t numbers) { return (numbers + 3) / 4 * 4; }

}  // namespace geokernels
