// Copies from device memory to the shared memory of a block that go on while its threads compute.
//
// A thread issues copies, closes them into a group, and waits until all but the last so many of its groups
// are there. Others see them after a barrier.

#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace geokernels {

constexpr int kPiece = 16;  // bytes that are copied at once, from and to a multiple of as many

#ifdef GEOKERNELS_CUDA_ON_HOST
using cuda_on_host::close_copies;
using cuda_on_host::copy_piece;
using cuda_on_host::wait_for_copies;
#else
// A piece, or zeros where there is none and nothing is read.
__device__ inline void copy_piece(void* to, const void* from, bool there) {
  const auto address = unsigned(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}

__device__ inline void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int Groups>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}
#endif

}  // namespace geokernels
