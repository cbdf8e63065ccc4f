// The weights of a geodesic between subspaces as functions of g = cos(theta), and their slopes.
//
//   along a + q   w+ = (1 + sinc theta) / (4 (1 + g))
//   along a - q   w- = (1 - sinc theta) / (4 (1 - g))
//
// Derived in geokernels/reference/path.py: everything is a function of c = cos(theta/2), through
// the series h(t) = 1 + t h1(t) in t = (1 - c) / 2 <= 0.147, without a branch, an inverse cosine or a
// difference of nearly equal numbers, at angle 0 as anywhere else.
//
// Arrays are padded to whole cache lines (core/padding.h).
// No include guard: included once for every SIMD level, after core/simd.h.

#include "core/path_formulas.h"

namespace geokernels::GEOKERNELS_LEVEL {

// Every array holds `stride` numbers, one for each principal angle, padding included.
template <class T>
struct Path {
  T* g;
  T* c;
  T* h1;
  T* h;
  T* sinc;
  T* sum;         // w+
  T* difference;  // w-

  static constexpr int64_t arrays = 7;

  Path(T* memory, int64_t stride)
      : g(memory),
        c(g + stride),
        h1(c + stride),
        h(h1 + stride),
        sinc(h + stride),
        sum(sinc + stride),
        difference(sum + stride) {}
};

// Fills everything from g.
template <class T>
inline void weigh(const Path<T>& path, int64_t stride) {
  for (int64_t j = 0; j < stride; ++j) {
    const Angle<T> angle(path.g[j]);
    path.c[j] = angle.c;
    path.h1[j] = angle.h1;
    path.h[j] = angle.h;
    path.sinc[j] = angle.sinc;
    path.sum[j] = angle.sum;
    path.difference[j] = angle.difference;
  }
}

// Divided differences of both weights between angle i and one vector of angles from j on.
template <class T>
inline void slopes(const Path<T>& path, int64_t i, int64_t j, vec<T>& sum, vec<T>& difference) {
  divided_differences<T>(path.c[i], path.h[i], path.h1[i], path.sinc[i], path.sum[i], path.difference[i],
                         load<T>(path.c + j), load<T>(path.h + j), sum, difference);
}

template <class T>
inline T mixed(const Path<T>& path, int64_t i, int64_t j) {
  return mixed_difference<T>(path.g[i], path.g[j], path.sum[i], path.difference[j]);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
