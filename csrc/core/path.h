// The weights of a geodesic between subspaces as functions of g = cos(theta), and their slopes.
//
//   along a + q   w+ = (1 + sinc theta) / (4 (1 + g))
//   along a - q   w- = (1 - sinc theta) / (4 (1 - g))
//
// Derived in geokernels/reference/path.py: everything is a function of c = cos(theta/2), through
// the series h(t) = 1 + t h1(t) in t = (1 - c) / 2 <= 0.147, without a branch, an inverse cosine or a
// difference of nearly equal numbers, at angle 0 as anywhere else.
//
// Arrays are padded to whole vectors (core/padding.h).
// No include guard: included once for every SIMD level, after core/simd.h.

namespace geokernels::GEOKERNELS_LEVEL {

// Terms of h1 that reach rounding at t = 0.147, and its coefficients 2^n n! / 3 5 .. (2n + 1), n from 1.
template <class T>
struct Series {
  static constexpr int terms = sizeof(T) == 4 ? 10 : 21;
  T coefficient[terms];
  constexpr Series() : coefficient() {
    double value = 1;
    for (int n = 1; n <= terms; ++n) {
      value *= 2.0 * n / (2 * n + 1);
      coefficient[n - 1] = T(value);
    }
  }
};

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
  constexpr Series<T> series;
  for (int64_t j = 0; j < stride; ++j) {
    const T c = std::sqrt((1 + path.g[j]) / 2), t = (1 - c) / 2;
    T h1 = series.coefficient[series.terms - 1];
    for (int n = series.terms - 2; n >= 0; --n) h1 = h1 * t + series.coefficient[n];
    const T h = 1 + t * h1;
    path.c[j] = c;
    path.h1[j] = h1;
    path.h[j] = h;
    path.sinc[j] = c / h;
    path.sum[j] = (1 + c / h) / (8 * c * c);
    path.difference[j] = (1 + h1 / 2) / (8 * (1 + c) * h);
  }
}

// Divided differences of both weights between angle i and one vector of angles from j on.
template <class T>
inline void slopes(const Path<T>& path, int64_t i, int64_t j, vec<T>& sum, vec<T>& difference) {
  constexpr Series<T> series;
  const vec<T> c_i = broadcast<T>(path.c[i]), c_j = load<T>(path.c + j), h_j = load<T>(path.h + j);
  const vec<T> t_i = (1 - c_i) / 2, t_j = (1 - c_j) / 2;

  // Horner's rule and its divided difference side by side
  vec<T> value = broadcast<T>(series.coefficient[series.terms - 1]), h1_t = {};
  for (int n = series.terms - 2; n >= 0; --n) {
    h1_t = h1_t * t_i + value;
    value = value * t_j + series.coefficient[n];
  }

  // from here on with respect to c
  const vec<T> h1 = -h1_t / 2, h = -(path.h1[i] + t_j * h1_t) / 2;
  const vec<T> sinc = (1 - path.sinc[i] * h) / h_j;
  const vec<T> c_g = 1 / (2 * (c_i + c_j));
  sum = c_g * (sinc / 8 - path.sum[i] * (c_i + c_j)) / (c_j * c_j);
  difference = c_g * (h1 / 16 - path.difference[i] * (path.h[i] + (1 + c_j) * h)) / ((1 + c_j) * h_j);
}

// What a turn between the pairs i and j does, (w+(g_i) - w-(g_j)) / (g_i + g_j); 0 for two right
// angles, between which the geodesic leaves the turn open.
template <class T>
inline T mixed(const Path<T>& path, int64_t i, int64_t j) {
  const T total = path.g[i] + path.g[j];
  return total > 64 * std::numeric_limits<T>::epsilon() ? (path.sum[i] - path.difference[j]) / total : T(0);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
