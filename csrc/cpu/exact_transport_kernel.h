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

// Infinite, with the column -1, where no sum is finite.
template <class T>
LeastSum least_sum(const T* cost, const double* height, int64_t columns) {
  constexpr int64_t width = Vector<double>::width, step = 4 * width;
  constexpr double inf = std::numeric_limits<double>::infinity();
  vec<double> best[4] = {broadcast(inf), broadcast(inf), broadcast(inf), broadcast(inf)};
  double sum = inf;
  int64_t j = 0;
  for (; j + step <= columns; j += step)
    for (int64_t k = 0; k < 4; ++k) {
      const vec<double> sums = load_wide(cost + j + k * width) + load(height + j + k * width);
      best[k] = sums < best[k] ? sums : best[k];
    }
  for (int64_t k = 0; k < 4; ++k)
    for (int64_t lane = 0; lane < width; ++lane) sum = best[k][lane] < sum ? best[k][lane] : sum;
  for (; j < columns; ++j) {
    const double s = double(cost[j]) + height[j];
    sum = s < sum ? s : sum;
  }
  if (!(sum < inf)) return {inf, -1};
  for (j = 0; double(cost[j]) + height[j] != sum;) ++j;
  return {sum, j};
}

}  // namespace geokernels::GEOKERNELS_LEVEL
