// Two point clouds as one pass over their pairs reads them: sums over the columns, for every row.

#pragma once

#include <cstdint>

namespace geokernels {

// The cost C of a pair, in units of eps, to which geokernels/kernels/transport_clouds.py brings every cost;
// numbered as in geokernels/kernels/costs.py.
enum class PairCost : int64_t {
  dot,      // -<x, y>
  square,   // |x - y|^2 / 2, by the Gram form: the points' own parts go into the biases
  root,     // |x - y|
  power,    // sum_d |x_d - y_d|^p
  sizes,    // the same for p = 1, which the kernels choose by themselves
  squares,  // and for p = 2
};

// Points are packed as cpu/transport_clouds_tiles.h says. A pair's weight is
//   E_ij = exp(row_bias_i + column_bias_j - temper C_ij)
// without the points' own parts of C; a bias of -inf takes the point out.
template <class T>
struct CloudPass {
  const T *rows, *columns;
  const T *row_bias, *column_bias;  // padded to whole panels
  int64_t n, m, features;
  PairCost cost;
  T p;
  T temper;  // below 1 while eps is annealed: sweeps alone look at it
};

// What multiplies the pairs' weights, beside them: <left_i, right_j>, packed alike; rank 0 for 1.
template <class T>
struct PairFactor {
  const T *left, *right;
  int64_t rank;
};

}  // namespace geokernels
