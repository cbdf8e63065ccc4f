// Work of uneven length, shared out to threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

#include "cpu/parallel.h"

namespace geokernels {

constexpr size_t kCacheLine = 64;

// Calls work(k, worker's memory of T, which begins a cache line) for every k below count. They are handed out
// one at a time, as some take longer than others; each is computed by one thread, so nothing depends on
// which.
template <class T, class Work>
void share_out(int64_t count, int64_t memory, const Work& work) {
  std::atomic<int64_t> taken{0};
  int64_t workers = std::min<int64_t>(count, torch::stable::get_num_threads());
  parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    std::unique_ptr<T[]> own;
    T* aligned = nullptr;  // vectors that cross cache lines are slow
    for (int64_t k; (k = taken.fetch_add(1, std::memory_order_relaxed)) < count;) {
      if (!own) {
        own.reset(new T[memory + kCacheLine / sizeof(T)]);
        auto past = reinterpret_cast<uintptr_t>(own.get()) % kCacheLine;
        aligned = own.get() + (past ? (kCacheLine - past) / sizeof(T) : 0);
      }
      work(k, aligned);
    }
  });
}

}  // namespace geokernels
