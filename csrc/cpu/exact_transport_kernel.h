// The search of exact transport for a pair that enters: the least of a row's costs and its columns' heights.
//
//   least_j cost[j] + height[j]
//
// cost [columns] float or double, height [columns] double; sums in double. Sums of two numbers do not depend
// on the width of a vector, and of equal ones the first is taken: every level finds the same.
//
// No include guard: included once for every SIMD level.

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
double least_of(const T* cost, const double* height, int64_t first, int64_t end) {
  constexpr int64_t width = Vector<double>::width, step = 4 * width;
  const auto sums = [&](int64_t j) { return load_wide(cost + j) + load(height + j); };
  vec<double> best[4] = {sums(first), sums(end - width), best[0], best[1]};
  int64_t j = first;
  for (; j + step <= end; j += step)
    for (int64_t k = 0; k < 4; ++k) {
      const vec<double> s = sums(j + k * width);
      best[k] = s < best[k] ? s : best[k];
    }
  for (; j + width <= end; j += width) {
    const vec<double> s = sums(j);
    best[0] = s < best[0] ? s : best[0];
  }
  best[0] = best[0] < best[1] ? best[0] : best[1], best[2] = best[2] < best[3] ? best[2] : best[3];
  double lane[width];
  store<double>(lane, best[0] < best[2] ? best[0] : best[2]);
  for (int64_t half = width / 2; half > 0; half /= 2)
    for (int64_t k = 0; k < half; ++k) lane[k] = lane[k] < lane[k + half] ? lane[k] : lane[k + half];
  return lane[0];
}

// The first of these columns whose sum this is; there is one.
template <class T>
int64_t column_of(const T* cost, const double* height, int64_t first, int64_t end, double sum) {
  constexpr int64_t width = Vector<double>::width, step = 2 * width;
  const auto hits = [&](int64_t j) { return load_wide(cost + j) + load(height + j) == broadcast(sum); };
  while (first + step <= end && !any<double>(hits(first) | hits(first + width))) first += step;
  while (double(cost[first]) + height[first] != sum) ++first;
  return first;
}

// The column only where the sum is below `bound`, else -1.
template <class T>
LeastSum least_sum(const T* cost, const double* height, int64_t columns, double bound) {
  constexpr int64_t chunk = 256;
  double sum = std::numeric_limits<double>::infinity();
  int64_t at = 0;
  if (columns < Vector<double>::width) {
    for (int64_t j = 0; j < columns; ++j) {
      const double s = double(cost[j]) + height[j];
      sum = s < sum ? s : sum;
    }
  } else {
    for (int64_t first = 0; first < columns;) {
      // no chunk is shorter than a vector
      const int64_t end = columns - first < 2 * chunk ? columns : first + chunk;
      const double own = least_of(cost, height, first, end);
      if (own < sum) sum = own, at = first;
      first = end;
    }
  }
  if (!(sum < bound)) return {sum, -1};
  return {sum, column_of(cost, height, at, columns, sum)};
}

}  // namespace geokernels::GEOKERNELS_LEVEL
