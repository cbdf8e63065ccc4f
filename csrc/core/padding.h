// Row lengths in scratch memory: whole vectors at every SIMD level, so that small matrices need
// no remainder loops. The padding is zero and stays zero.

#pragma once

#include <cstdint>

namespace geokernels {

template <class T>
constexpr int64_t padded(int64_t size) {
  constexpr int64_t lanes = 64 / sizeof(T);
  return (size + lanes - 1) / lanes * lanes;
}

// Lanes of core/jacobi.h for so many rows, at the widest level.
template <class T>
constexpr int64_t most_seats(int64_t rows) {
  constexpr int64_t pair = 2 * 64 / sizeof(T);
  return (rows + pair - 1) / pair * pair;
}

// Padded rows that are walked in parallel: an odd number of cache lines, so that the same
// column of many rows does not fall into the same few places of the cache.
template <class T>
constexpr int64_t spread(int64_t size) {
  constexpr int64_t lanes = 64 / sizeof(T);
  return (padded<T>(size) / lanes | 1) * lanes;
}

}  // namespace geokernels
