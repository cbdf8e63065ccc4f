// Memory of one thread, on whole cache lines, as tensors are. It is not filled, but with GEOKERNELS_POISON:
// then what was not written is NaN, and what is written beyond the end ends the process.

#pragma once

#include <new>

#include "core/workspace.h"
#include "host/huge_pages.h"

namespace geokernels {

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : count_(count), data_(static_cast<T*>(::operator new[]((count + kFence) * sizeof(T), kAligned))) {
    in_huge_pages(data_, count_ * int64_t(sizeof(T)));
    std::fill_n(data_ + count_, kFence, nothing<T>());
  }

  ~Scratch() {
    ASAN_UNPOISON_MEMORY_REGION(data_, (count_ + kFence) * sizeof(T));
    for (int64_t i = 0; i < kFence; ++i)
      if (!is_nothing(data_[count_ + i])) end_process("a kernel wrote beyond its memory");
    ::operator delete[](data_, kAligned);
  }

  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // All of it, for one more problem.
  Workspace<T> lend() { return Workspace<T>(data_, count_).again(); }

 private:
  static constexpr std::align_val_t kAligned{kCacheLine};
  static constexpr int64_t kFence = kPoison ? kCacheLine / sizeof(T) : 0;

  static bool is_nothing(T x) { return x != x || x == nothing<T>(); }

  const int64_t count_;
  T* const data_;
};

}  // namespace geokernels
