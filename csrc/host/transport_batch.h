// From tensors to a TransportBatch: what entropic transport of stored costs does before it computes, on the
// CPU and the GPU.

#pragma once

#include <limits>
#include <tuple>

#include "core/transport_problem.h"
#include "host/fresh.h"
#include "host/tensors.h"

namespace geokernels {

using Solution = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;  // value, f, g, error, iterations
using PointSolution = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // costs, and a Solution

inline Solution fresh_solution(const Tensor& like, const Batch& batch, int64_t rows, int64_t columns) {
  return {fresh(like, batch.sizes), fresh(like, batch.with({rows})), fresh(like, batch.with({columns})),
          fresh(like, batch.sizes), fresh(like, batch.sizes, ScalarType::Long)};
}

// The arguments of every transport operator beside its costs or points.
struct TransportArguments {
  const MaybeTensor &a, &b, &n, &m, &start;
  double eps, reach;
  int64_t max_iter;
  double tol;
};

constexpr int64_t kAnyPoints = std::numeric_limits<int32_t>::max();

// Checks what memory safety needs, allocates the results, and calls work with a TransportBatch of floats or
// doubles of at most so many points a side.
template <class Work>
Solution solve_batch(const Tensor& cost_given, const TransportArguments& with, const Work& work,
                     int64_t most = kMostPoints) {
  const Tensor cost = dense(cost_given);
  check_first(cost, 2);
  const int64_t rows = cost.size(-2), columns = cost.size(-1);
  STD_TORCH_CHECK(0 < rows && rows <= most && 0 < columns && columns <= most, "geokernels: between 1 and ",
                  most, " points a side");
  const Batch batch(cost, 2);
  Solution out = fresh_solution(cost, batch, rows, columns);
  const int64_t count = batch.count;
  if (count == 0) return out;
  const ScalarType dtype = cost.scalar_type(), length = ScalarType::Long;
  with_type(cost, [&](auto zero) {
    using T = decltype(zero);
    work(TransportBatch<T>{read<T>(cost), input<T>(dense(with.a), "a", cost, count * rows, dtype),
                           input<T>(dense(with.b), "b", cost, count * columns, dtype),
                           input<T>(dense(with.start), "start", cost, count * columns, dtype),
                           input<int64_t>(dense(with.n), "n", cost, count, length),
                           input<int64_t>(dense(with.m), "m", cost, count, length), count, rows, columns,
                           with.eps, with.reach, with.tol, with.max_iter, write<T>(std::get<0>(out)),
                           write<T>(std::get<1>(out)), write<T>(std::get<2>(out)), write<T>(std::get<3>(out)),
                           write<int64_t>(std::get<4>(out))});
  });
  return out;
}

// Points whose costs a kernel makes by itself.
struct Points {
  Tensor x, y;  // [..., N, D], [..., M, D]
  Batch batch;
  int64_t rows, columns, features;
  PointCost kind;

  Points(const Tensor& x_given, const Tensor& y_given, int64_t cost)
      : x(dense(x_given)), y(dense(y_given)), batch(x, 2), kind(PointCost(cost)) {
    STD_TORCH_CHECK(x.dim() >= 2 && y.dim() == x.dim(), "geokernels: points must have two dimensions");
    STD_TORCH_CHECK(0 <= cost && cost <= int64_t(PointCost::square), "geokernels: no such cost, ", cost);
    rows = x.size(-2);
    columns = y.size(-2);
    features = x.size(-1);
    check(y, batch.with({columns, features}), x);
  }

  Tensor fresh_costs(ScalarType dtype) const {
    STD_TORCH_CHECK(features > 0, "geokernels: points must have features");
    return fresh(x, batch.with({rows, columns}), dtype);
  }
};

}  // namespace geokernels
