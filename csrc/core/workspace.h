// A kernel's own memory, handed out piece by piece.
//
// The same code hands the pieces out and, without memory, counts what they take: a size is written down once.
// Every piece starts a cache line.
//
// With GEOKERNELS_POISON (scripts/sanitize.sh) a piece that is not within the memory ends the process, and
// pieces are apart: what lies between them is out of bounds for the address sanitizer.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <type_traits>

#include "core/padding.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace geokernels {

#ifdef GEOKERNELS_POISON
constexpr bool kPoison = true;
#else
constexpr bool kPoison = false;
#endif

[[noreturn]] inline void end_process(const char* sentence) {
  std::fprintf(stderr, "geokernels: %s\n", sentence);
  std::abort();
}

// NaN, or an index out of range: what memory is filled with before anything is written to it.
template <class T>
constexpr T nothing() {
  return std::is_floating_point<T>::value ? std::numeric_limits<T>::quiet_NaN()
                                          : T(std::numeric_limits<T>::max() / 2);
}

template <class T>
class Workspace {
 public:
  using Number = T;

  Workspace() = default;  // only counts
  Workspace(T* memory, int64_t size) : memory_(memory), size_(size) {}

  T* take(int64_t count) {
    const int64_t at = taken_, whole = round_up(count, kLine) + (kPoison ? kLine : 0);
    taken_ += whole;
    if (!memory_) return nullptr;
    if (kPoison && taken_ > size_) end_process("a kernel asked for more memory than was counted");
    ASAN_UNPOISON_MEMORY_REGION(memory_ + at, count * sizeof(T));
    ASAN_POISON_MEMORY_REGION(memory_ + at + count, (whole - count) * sizeof(T));
    return memory_ + at;
  }

  T* take_zeros(int64_t count) {
    T* const piece = take(count);
    if (piece) std::fill_n(piece, count, T(0));
    return piece;
  }

  // Numbers of another type.
  template <class Other>
  Other* take_as(int64_t count) {
    return reinterpret_cast<Other*>(take((count * int64_t(sizeof(Other)) + sizeof(T) - 1) / sizeof(T)));
  }

  // A piece that is itself handed out in pieces.
  Workspace part(int64_t count) {
    T* const piece = take(count);
    return piece ? Workspace(piece, count) : Workspace();
  }

  // The same memory for another step, which may not read what is in it.
  Workspace again() const {
    if (kPoison && memory_) {
      ASAN_UNPOISON_MEMORY_REGION(memory_, size_ * sizeof(T));
      std::fill_n(memory_, size_, nothing<T>());
    }
    return memory_ ? Workspace(memory_, size_) : Workspace();
  }

  // Numbers handed out so far.
  int64_t taken() const { return taken_; }

 private:
  static constexpr int64_t kLine = kCacheLine / sizeof(T);

  T* memory_ = nullptr;
  int64_t size_ = 0, taken_ = 0;
};

// What `Room<T>(workspace, sizes...)` takes.
template <template <class> class Room, class T, class... Sizes>
int64_t room_for(const Sizes&... sizes) {
  Workspace<T> counted;
  Room<T>(counted, sizes...);
  return counted.taken();
}

}  // namespace geokernels
