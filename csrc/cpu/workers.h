// The problems of a batch, shared out to threads.

#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "core/watch.h"
#include "cpu/scratch.h"
#include "host/tensors.h"

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

// Calls work() on so many threads at once, at most, that of the caller among them, and waits for them.
// torch's threads wait in an OpenMP runtime that the thread sanitizer cannot look into: its build is told of
// the fork and the join.
#ifdef GEOKERNELS_THREAD_SANITIZER
// global, as the address of a captured one would be read before it is acquired
inline char fork_of_threads, join_of_threads;

// What a thread of the team does. Not looked into by the compiler, which would read `work` for the call,
// before it is acquired.
template <class Work>
struct Announced {
  const Work& work;

  __attribute__((noipa)) void operator()(int64_t, int64_t) const {
    __tsan_acquire(&fork_of_threads);
    work();
    __tsan_release(&join_of_threads);
  }
};

template <class Work>
void on_threads(int64_t threads, const Work& work) {
  const Announced<Work> announced{work};
  __tsan_release(&fork_of_threads);
  torch::stable::parallel_for(0, threads, 1, announced);
  __tsan_acquire(&join_of_threads);
}
#else
template <class Work>
void on_threads(int64_t threads, const Work& work) {
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) { work(); });
}
#endif

// How many problems have been taken, and how many are done.
class Share {
 public:
  Share(int64_t count, Watch& watch) : count_(count), watch_(watch) {}

  // The next problem; `count` where none is left, or where the call is to end early.
  int64_t take() { return watch_.stop() ? count_ : std::min(taken_.fetch_add(1), count_); }

  void finish() {
    if (done_.fetch_add(1) + 1 < count_) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    finished_.notify_all();
  }

  // For the calling thread, while others work on the last problems: it alone can look for signals.
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

// Calls work(k, Workspace<T> of `memory` numbers) for every k below count, unless the call is to end early.
// Threads take the problems as they become free, `together` at a time, as some problems take longer than
// others. One thread computes a problem, so that results do not depend on which thread does.
template <class T, class Work>
void share_out(Watch& watch, int64_t count, int64_t memory, const Work& work, int64_t together = 1) {
  if (count <= 0) return;
  const int64_t shares = (count + together - 1) / together;
  Share share(shares, watch);
  const auto caller = std::this_thread::get_id();
  const int64_t workers = std::min<int64_t>(shares, torch::stable::get_num_threads());
  on_threads(workers, [&] {
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

// The same with a Watch of its own, each problem of about `cost` multiplications.
template <class T, class Work>
void share_problems(int64_t count, int64_t cost, int64_t memory, const Work& work) {
  constexpr int64_t kWorthAThread = 50'000;
  Watch watch;
  share_out<T>(watch, count, memory, work, 1 + kWorthAThread / (1 + cost));
  watch.end();
}

// The same in the number type of `like`: calls work(k, Workspace<T> of memory(T()) numbers).
template <class Memory, class Work>
void for_each_problem(const Tensor& like, int64_t count, int64_t cost, const Memory& memory,
                      const Work& work) {
  with_type(like, [&](auto zero) { share_problems<decltype(zero)>(count, cost, memory(zero), work); });
}

}  // namespace geokernels
