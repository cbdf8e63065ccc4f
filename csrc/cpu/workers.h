// Work of uneven length, shared out to threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "core/watch.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace geokernels {

// How many of some problems are taken and done.
class Share {
 public:
  Share(int64_t count, Watch& watch) : count_(count), watch_(watch) {}

  // The next problem, or `count` where there is none, or the call is to end.
  int64_t take() { return watch_.stop() ? count_ : std::min(taken_.fetch_add(1), count_); }

  void finish() {
    if (done_.fetch_add(1) + 1 < count_) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    finished_.notify_all();
  }

  // In the thread that called, while others are at their last problems: somebody must look out for signals.
  void wait() {
    if (watch_.stop()) return;
    std::unique_lock<std::mutex> lock(mutex_);
    while (!finished_.wait_for(lock, Watch::kPeriod, [&] { return done_.load() >= count_; }))
      if (watch_.stop()) return;
  }

 private:
  const int64_t count_;
  Watch& watch_;
  std::atomic<int64_t> taken_{0}, done_{0};
  std::mutex mutex_;
  std::condition_variable finished_;
};

// Calls work(k, Workspace<T> of `memory` numbers) for every k below count, unless the call is to end. So many
// together are handed out at a time, as some take longer than others; each is computed by one thread, so
// nothing depends on which.
template <class T, class Work>
void share_out(Watch& watch, int64_t count, int64_t memory, const Work& work, int64_t together = 1) {
  if (count <= 0) return;
  const int64_t shares = (count + together - 1) / together;
  Share share(shares, watch);
  const auto caller = std::this_thread::get_id();
  const int64_t workers = std::min<int64_t>(shares, torch::stable::get_num_threads());
  parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    std::optional<Scratch<T>> own;
    for (int64_t taken; (taken = share.take()) < shares;) {
      if (!own) own.emplace(memory);
      const int64_t end = std::min(count, (taken + 1) * together);
      for (int64_t k = taken * together; k < end; ++k) work(k, own->lend());
      share.finish();
    }
    if (workers > 1 && std::this_thread::get_id() == caller) share.wait();
  });
}

}  // namespace geokernels
