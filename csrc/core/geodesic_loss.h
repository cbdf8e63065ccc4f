// One problem of the geodesic losses, as the host passes it to a kernel.

#pragma once

#include <cstdint>

namespace geokernels {

template <class T>
struct LossProblem {
  const T* current;       // [N, D]
  const T* source;        // [N, D], or null
  const T* other;         // [rows, D]
  const T* other_source;  // [rows, D], or null; both sources or none
  const T* q;             // [L, D]   a basis of the other side, or null: made here
  int64_t N, rows, D, K, L;
  double shortest;  // a difference up to this length has no direction
  double eps;       // nor has a row of this squared length along the geodesic
  bool follow;      // whether the gradient also goes through the basis of the current side
  T* loss;          // [1]
  T* gradient;      // [N, D], or null
};

}  // namespace geokernels
