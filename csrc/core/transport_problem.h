// One entropic transport problem, as the host hands it to a kernel.

#pragma once

#include <cstdint>

namespace geokernels {

// Largest cloud the dense kernels take: one problem's kernel matrix stays in the L2 cache.
constexpr int64_t kMostPoints = 256;

template <class T>
struct TransportProblem {
  const T* cost;   // [n, stride], of which m columns count; +inf forbids a pair
  int64_t stride;  // M of the batch
  const T* a;      // [n] weights, or null: uniform
  const T* b;      // [m] weights, or null: uniform
  const T* start;  // [m] potential g to start from, or null: zero
  int64_t n, m;
  double eps, reach;  // reach is +inf when the marginals are hard constraints
  double tol;
  int64_t max_iter;
  T* value;
  T* f;  // [n]
  T* g;  // [m]
  T* error;
  int64_t* iterations;
};

}  // namespace geokernels
