// Long calls check now and then whether they should end early, as after Ctrl-C.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

namespace geokernels {

// One call of an operator, and the threads that work for it. The thread that called lets Python run its
// handlers of signals ten times a second; where one of them raises, all threads are asked to end.
class Watch {
 public:
  Watch() : caller_(std::this_thread::get_id()), next_(Clock::now() + kPeriod) {}
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // Whether to end early, with results that nobody will see. Costs a look at a clock.
  bool stop() {
    if (stopped_.load(std::memory_order_relaxed)) return true;
    if (std::this_thread::get_id() != caller_) return false;
    const auto now = Clock::now();
    if (now < next_) return false;
    next_ = now + kPeriod;
    if (raised()) stopped_.store(true, std::memory_order_relaxed);
    return stopped_.load(std::memory_order_relaxed);
  }

  // Throws if the work has ended early.
  void end() const {
    if (stopped_.load(std::memory_order_relaxed)) give_up();
  }

  static constexpr std::chrono::milliseconds kPeriod{100};

 private:
  using Clock = std::chrono::steady_clock;

  static bool raised();  // cpu/watch.cpp
  [[noreturn]] static void give_up();

  const std::thread::id caller_;
  Clock::time_point next_;  // of the caller alone
  std::atomic<bool> stopped_{false};
};

// Asks a watch only after a certain amount of work, for loops whose rounds take less time than the clock.
class Pace {
 public:
  explicit Pace(Watch& watch) : watch_(watch) {}

  // After a round of about so many multiplications.
  bool stop(int64_t work) {
    left_ -= work + 1;
    if (left_ > 0) return false;
    left_ = kBetween;
    return watch_.stop();
  }

 private:
  static constexpr int64_t kBetween = 100'000;

  Watch& watch_;
  int64_t left_ = kBetween;
};

}  // namespace geokernels
