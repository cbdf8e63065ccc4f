// torch's parallel loop. Its threads wait for one another in an OpenMP runtime that a thread sanitizer cannot
// look into: for that build, fork and join are spelt out.

#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GEOKERNELS_THREAD_SANITIZER
#endif
#elif defined(__SANITIZE_THREAD__)
#define GEOKERNELS_THREAD_SANITIZER
#endif

#ifdef GEOKERNELS_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace geokernels {

#ifdef GEOKERNELS_THREAD_SANITIZER
// global, as the address of a captured one would be read before it is acquired
inline char fork_of_threads, join_of_threads;

template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  auto share = [&](int64_t from, int64_t to) {
    __tsan_acquire(&fork_of_threads);
    body(from, to);
    __tsan_release(&join_of_threads);
  };
  __tsan_release(&fork_of_threads);
  torch::stable::parallel_for(begin, end, grain, share);
  __tsan_acquire(&join_of_threads);
}
#else
// Calls body(from, to) for ranges that make up [begin, end), of at least `grain` each, on several threads.
using torch::stable::parallel_for;
#endif

}  // namespace geokernels
