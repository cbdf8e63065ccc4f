// Threads that work on parts of one problem, as a kernel is given them.
//
// A function pointer and no virtual function: kernels are compiled once for every SIMD level, and what all of
// them share must not be.

#pragma once

#include <cstdint>

#include "core/workspace.h"

namespace geokernels {

template <class T>
struct Crew {
  using Part = void (*)(const void* work, int64_t part, Workspace<T> memory);

  const void* host;
  void (*call)(const void* host, int64_t count, int64_t memory, Part part, const void* work);

  // Calls part(work, k, `memory` numbers) for every k below count, in any order, and waits for them.
  void each(int64_t count, int64_t memory, Part part, const void* work) const {
    call(host, count, memory, part, work);
  }
};

}  // namespace geokernels
