// What gradients of entropic transport are made of, as the host hands it to a kernel.

#pragma once

#include <cstdint>

#include "core/transport_problem.h"

namespace geokernels {

// The plan relative to the weights: core/transport_density.h.
template <class T>
struct DensityBatch {
  const T *cost, *f, *g;  // [problems, rows, columns], [problems, rows], [problems, columns]
  int64_t problems, rows, columns;
  T inverse;  // 1 / eps
  T* out;     // as cost
};

// The gradient of sum_ij weight_ij C_ij to x.
template <class T>
struct PointGradientBatch {
  const T *weight, *x,
      *y;  // [problems, rows, columns], [problems, rows, features], [problems, columns, features]
  int64_t problems, rows, columns, features;
  PointCost kind;
  T* out;  // as x
};

}  // namespace geokernels
