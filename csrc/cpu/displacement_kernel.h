// Points on their way to the points that they are assigned to, for one problem. The costs of the assignment
// are cpu/transport_points_kernel.h.
//
//   z[t, i, :] = (1 - times[t]) x[i, :] + times[t] y[chosen[i], :]
//
// x [n, features], y [m, features], chosen [n] in [0, m), z [count, n, features]. Computed from the
// nearer end, so that both ends are exact.
//
// No include guard: included once for every SIMD level.

#include "cpu/assignment_kernel.h"
#include "cpu/transport_points_kernel.h"

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
bool are_finite(const T* cost, int64_t count) {
  constexpr int64_t width = Vector<T>::width;
  vec<T> nothing[4] = {};  // x - x: 0, but NaN where x is not finite
  int64_t i = 0;
  for (; i + 4 * width <= count; i += 4 * width)
    for (int64_t k = 0; k < 4; ++k) nothing[k] += load(cost + i + k * width) - load(cost + i + k * width);
  for (; i < count; ++i) nothing[0] += cost[i] - cost[i];
  return sum<T>((nothing[0] + nothing[1]) + (nothing[2] + nothing[3])) == 0;
}

template <class T>
void displace_row(const T* from, const T* to, T time, int64_t features, T* z) {
  constexpr int64_t width = Vector<T>::width;
  const bool early = time < T(0.5);
  const T *near = early ? from : to, *far = early ? to : from;
  const T share = early ? time : 1 - time;
  auto between = [&](vec<T> a, vec<T> b) { return a + share * (b - a); };
  int64_t d = 0;
  for (; d + width <= features; d += width) store(z + d, between(load(near + d), load(far + d)));
  if (d < features) {
    const int64_t rest = features - d;
    store_first(z + d, between(load_first(near + d, rest), load_first(far + d, rest)), rest);
  }
}

template <class T>
void displace(const T* x, const T* y, const int64_t* chosen, const T* times, int64_t count, int64_t n,
              int64_t features, T* z) {
  for (int64_t t = 0; t < count; ++t)
    for (int64_t i = 0; i < n; ++i, z += features)
      displace_row(x + i * features, y + chosen[i] * features, times[t], features, z);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
