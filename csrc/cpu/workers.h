// Work of uneven length, shared out to threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

#include "cpu/parallel.h"

namespace geokernels {

// Calls work(k, worker's memory of T) for every k below count. They are handed out one at a time, as some
// take longer than others; each is computed by one thread, so nothing depends on which.
template <class T, class Work>
void share_out(int64_t count, int64_t memory, const Work& work) {
  std::atomic<int64_t> taken{0};
  int64_t workers = std::min<int64_t>(count, torch::stable::get_num_threads());
  parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    std::unique_ptr<T[]> own;
    for (int64_t k; (k = taken.fetch_add(1, std::memory_order_relaxed)) < count;) {
      if (!own) own.reset(new T[memory]);
      work(k, own.get());
    }
  });
}

}  // namespace geokernels
