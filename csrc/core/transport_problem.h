// One entropic transport problem, and a batch of them, as the host hands them to a kernel.

#pragma once

#include <cstdint>

#include "core/anywhere.h"

namespace geokernels {

// Largest cloud that one thread, or a block of a GPU, solves from costs that it makes: a kernel matrix stays
// in the L2 cache.
constexpr int64_t kMostPoints = 256;

// How the cost of a pair is computed from its points; numbered as in geokernels/kernels/costs.py.
enum class PointCost : int64_t { dot, angle, square };

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

// How many points of problem k count, of at most so many; `lengths` is null where all of them do.
GEOKERNELS_ANYWHERE inline int64_t points_of(const int64_t* lengths, int64_t k, int64_t most) {
  if (!lengths) return most;
  return lengths[k] < 1 ? 1 : lengths[k] > most ? most : lengths[k];
}

// Problems of the same padded size, one behind the other.
template <class T>
struct TransportBatch {
  using Number = T;

  const T* cost;           // [problems, rows, columns]
  const T *a, *b, *start;  // [problems, rows], [problems, columns] twice, or null
  const int64_t *n, *m;    // [problems] points that count, or null: all
  int64_t problems, rows, columns;
  double eps, reach, tol;
  int64_t max_iter;
  T *value, *f, *g, *error;
  int64_t* iterations;

  GEOKERNELS_ANYWHERE TransportProblem<T> problem(int64_t k) const {
    TransportProblem<T> p;
    p.n = points_of(n, k, rows), p.m = points_of(m, k, columns);
    p.cost = cost + k * rows * columns, p.stride = columns;
    p.a = a ? a + k * rows : nullptr;
    p.b = b ? b + k * columns : nullptr;
    p.start = start ? start + k * columns : nullptr;
    p.eps = eps, p.reach = reach, p.tol = tol, p.max_iter = max_iter;
    p.value = value + k, p.error = error + k, p.iterations = iterations + k;
    p.f = f + k * rows, p.g = g + k * columns;
    return p;
  }
};

}  // namespace geokernels
