// The weights of a geodesic between subspaces and their slopes, number by number, for the CPU and the GPU.
//
// Derived in geokernels/reference/path.py, stated in core/path.h. V is a number or a vector of them.
//
// No include guard: included once for every SIMD level, and by CUDA kernels with a level of their own.

#include "core/anywhere.h"

namespace geokernels::GEOKERNELS_LEVEL {

// As many terms of h1 as count at t = 0.147, and their coefficients 2^n n! / 3 5 .. (2n + 1), n from 1.
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

// Everything about one principal angle, from its cosine.
template <class T>
struct Angle {
  T c, h1, h, sinc;
  T sum, difference;  // w+, w-

  GEOKERNELS_ANYWHERE explicit Angle(T g) {
    constexpr Series<T> series;
    c = std::sqrt((1 + g) / 2);
    const T t = (1 - c) / 2;
    h1 = series.coefficient[series.terms - 1];
#pragma unroll
    for (int n = series.terms - 2; n >= 0; --n) h1 = h1 * t + series.coefficient[n];
    h = 1 + t * h1;
    sinc = c / h;
    sum = (1 + c / h) / (8 * c * c);
    difference = (1 + h1 / 2) / (8 * (1 + c) * h);
  }
};

// Divided differences of both weights between angle i and others j, of which c and h are given.
template <class T, class V>
GEOKERNELS_ANYWHERE inline void divided_differences(T c_i, T h_i, T h1_i, T sinc_i, T sum_i, T difference_i,
                                                    V c_j, V h_j, V& sum, V& difference) {
  constexpr Series<T> series;
  const T t_i = (1 - c_i) / 2;
  const V t_j = (1 - c_j) / 2;

  // Horner's rule and its divided difference side by side
  V value = series.coefficient[series.terms - 1] - V{}, h1_t = {};
#pragma unroll
  for (int n = series.terms - 2; n >= 0; --n) {
    h1_t = h1_t * t_i + value;
    value = value * t_j + series.coefficient[n];
  }

  // from here on with respect to c
  const V h1 = -h1_t / 2, h = -(h1_i + t_j * h1_t) / 2;
  const V sinc = (1 - sinc_i * h) / h_j;
  const V c_g = 1 / (2 * (c_i + c_j));
  sum = c_g * (sinc / 8 - sum_i * (c_i + c_j)) / (c_j * c_j);
  difference = c_g * (h1 / 16 - difference_i * (h_i + (1 + c_j) * h)) / ((1 + c_j) * h_j);
}

// What a row's coordinates are multiplied by before they are squared, from the largest size of them: 1 where
// squares and their sums can neither overflow nor vanish.
template <class T>
GEOKERNELS_ANYWHERE inline T moderation(T largest) {
  constexpr T far = T(1 << 30), least = std::numeric_limits<T>::min();
  const bool moderate = !(largest > 0) || (largest >= 1 / far && largest <= far);
  return moderate ? T(1) : 1 / (largest > least ? largest : least);
}

// (w+(g_i) - w-(g_j)) / (g_i + g_j), the effect of a rotation between two pairs of principal vectors; 0 for
// two right angles, where the geodesic does not determine it.
template <class T>
GEOKERNELS_ANYWHERE inline T mixed_difference(T g_i, T g_j, T sum_i, T difference_j) {
  const T total = g_i + g_j;
  return total > 64 * std::numeric_limits<T>::epsilon() ? (sum_i - difference_j) / total : T(0);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
