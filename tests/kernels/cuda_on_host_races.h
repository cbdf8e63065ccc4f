// What tests/kernels/cuda_on_host_races.cpp is told of the thread that runs: whose accesses it is shown.

#pragma once

#include <cstddef>
#include <cstdint>

namespace cuda_on_host {

struct Watched {
  bool kernel = false;                       // its accesses count: the stand-in's own, and the test's, do not
  uint32_t thread = 0;                       // in its block
  uint32_t block = 0;                        // counted over all launches, from 1
  uint32_t first = 1;                        // the first block of this launch: others are finished
  uint32_t barriers = 0, warp_barriers = 0;  // that the thread has passed
  const unsigned char* stack = nullptr;      // of the thread, private to it
  size_t stack_size = 0;
  const unsigned char* memory = nullptr;  // of the block
  size_t memory_size = 0;
};

inline Watched watched;

// While one of these lives, accesses are the stand-in's own.
struct Unwatched {
  const bool before = watched.kernel;
  Unwatched() { watched.kernel = false; }
  ~Unwatched() { watched.kernel = before; }
};

// Whether the barrier in that line counts: one may be left out, to see that somebody notices.
bool counts_barrier(const char* file, int line);

// Forget what was seen of the memory of the block that is watched now, and of device memory.
void forget_block();
void forget_device();

}  // namespace cuda_on_host
