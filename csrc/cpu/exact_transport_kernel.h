// The search of exact transport for a pair that enters: the least of a row's costs and its columns' heights.
//
//   least_j cost[j] + height[j]
//
// cost [columns] float or double, height [columns] double; sums in double. Sums of two numbers do not depend
// on the width of a vector, and of equal ones the first is taken: every level finds the same.
//
// No include guard: included once for every SIMD level.

#include "cpu/lanes_kernel.h"

namespace geokernels::GEOKERNELS_LEVEL {

inline vec<double> load_wide(const double* p) { return load(p); }

inline vec<double> load_wide(const float* p) {
  typedef float narrow __attribute__((vector_size(GEOKERNELS_VECTOR_BYTES / 2)));
  narrow v;
  __builtin_memcpy(&v, p, sizeof(v));
  return __builtin_convertvector(v, vec<double>);
}

// The least sum of columns first .. end - 1, of which there are as many as a vector is wide, or more. The
// last vector begins where it ends with the columns: some are looked at twice.
template <class T>
Wide least_of(const T* cost, const double* height, int64_t first, int64_t end) {
  constexpr int64_t step = 4 * kWide;
  const auto sums = [&](int64_t j) { return load_wide(cost + j) + load(height + j); };
  Wide best[4] = {sums(first), sums(end - kWide), best[0], best[1]};
  int64_t j = first;
  for (; j + step <= end; j += step)
    for (int64_t k = 0; k < 4; ++k) best[k] = smaller(sums(j + k * kWide), best[k]);
  for (; j + kWide <= end; j += kWide) best[0] = smaller(sums(j), best[0]);
  return smallest(smaller(smaller(best[0], best[1]), smaller(best[2], best[3])));
}

// The first of these columns whose sum this is; there is one. 64 at a time, as where it is cannot be
// foreseen.
template <class T>
int64_t column_of(const T* cost, const double* height, int64_t first, int64_t end, Wide sum) {
  const auto hits = [&](int64_t j) { return equal_lanes(load_wide(cost + j) + load(height + j), sum); };
  for (; first + 64 <= end; first += 64) {
    uint64_t found = 0;
    for (int64_t k = 0; k < 64; k += kWide) found |= hits(first + k) << k;
    if (found) return first + __builtin_ctzll(found);
  }
  uint64_t found = 0;
  for (int64_t k = 0; first + k < end; k += kWide) {
    const int64_t j = std::min(first + k, end - kWide);
    found |= hits(j) << k >> (first + k - j);
  }
  return first + __builtin_ctzll(found);
}

// The column only where the sum is below `bound`, else -1.
template <class T>
LeastSum least_sum(const T* cost, const double* height, int64_t columns, double bound) {
  constexpr int64_t chunk = 256;
  if (columns < kWide) {
    LeastSum found{std::numeric_limits<double>::infinity(), -1};
    for (int64_t j = 0; j < columns; ++j) {
      const double s = double(cost[j]) + height[j];
      if (s < found.sum) found = {s, j};
    }
    if (!(found.sum < bound)) found.column = -1;
    return found;
  }
  Wide sum = broadcast(std::numeric_limits<double>::infinity());
  int64_t at = 0;
  for (int64_t first = 0; first < columns;) {
    // no chunk is shorter than a vector
    const int64_t end = columns - first < 2 * chunk ? columns : first + chunk;
    const Wide own = least_of(cost, height, first, end);
    if (own[0] < sum[0]) sum = own, at = first;
    first = end;
  }
  if (!(sum[0] < bound)) return {sum[0], -1};
  return {sum[0], column_of(cost, height, at, columns, sum)};
}

}  // namespace geokernels::GEOKERNELS_LEVEL
