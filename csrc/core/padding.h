// Row lengths in scratch memory: whole cache lines, which are whole vectors at every SIMD level, so that
// small matrices need no remainder loops. The padding is zero and stays zero.

#pragma once

#include <cstdint>

namespace geokernels {

constexpr int64_t kCacheLine = 64;  // bytes

// The least multiple of `whole` that is not below `size`.
constexpr int64_t round_up(int64_t size, int64_t whole) { return (size + whole - 1) / whole * whole; }

template <class T>
constexpr int64_t padded(int64_t size) {
  return round_up(size, kCacheLine / sizeof(T));
}

// Lanes of core/jacobi.h for so many rows, at the widest level.
template <class T>
constexpr int64_t most_seats(int64_t rows) {
  return round_up(rows, 2 * kCacheLine / sizeof(T));
}

// The length of rows that are read side by side: an odd number of cache lines, so that the same column of
// many rows does not fall into the same few sets of the cache.
template <class T>
constexpr int64_t spread(int64_t size) {
  constexpr int64_t line = kCacheLine / sizeof(T);
  return (padded<T>(size) / line | 1) * line;
}

}  // namespace geokernels
