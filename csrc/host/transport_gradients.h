// The tensors of transport_density and point_gradient: checks, memory for the result, and what a kernel is
// given.

#pragma once

#include "core/transport_gradients.h"
#include "host/transport_batch.h"

namespace geokernels {

// [..., N, M] costs and their potentials; work is called with a DensityBatch, unless there are no pairs.
template <class Work>
Tensor density_of_batch(const Tensor& cost_given, const Tensor& f_given, const Tensor& g_given, double eps,
                        const Work& work) {
  const Tensor cost = dense(cost_given), f = dense(f_given), g = dense(g_given);
  check_first(cost, 2);
  const int64_t rows = cost.size(-2), columns = cost.size(-1), count = cost.numel();
  Tensor out = fresh(cost, Batch(cost, 0).sizes);
  if (count == 0) return out;
  const ScalarType dtype = cost.scalar_type();
  with_type(cost, [&](auto zero) {
    using T = decltype(zero);
    work(DensityBatch<T>{read<T>(cost), input<T>(f, "f", cost, count / columns, dtype),
                         input<T>(g, "g", cost, count / rows, dtype), count / rows / columns, rows, columns,
                         T(1 / eps), write<T>(out)});
  });
  return out;
}

// [..., N, M], [..., N, D] and [..., M, D] to [..., N, D]; work is called with a PointGradientBatch, unless
// there is nothing to write.
template <class Work>
Tensor point_gradient_of_batch(const Tensor& weight_given, const Tensor& x, const Tensor& y, int64_t cost,
                               const Work& work) {
  const Tensor weight = dense(weight_given);
  const Points points(x, y, cost);
  check_first(points.x, 2);
  const int64_t problems = points.batch.count, rows = points.rows, columns = points.columns,
                features = points.features;
  Tensor out = fresh(points.x, points.batch.with({rows, features}));
  if (out.numel() == 0) return out;
  with_type(out, [&](auto zero) {
    using T = decltype(zero);
    work(PointGradientBatch<T>{input<T>(weight, "weight", out, problems * rows * columns, out.scalar_type()),
                               read<T>(points.x), read<T>(points.y), problems, rows, columns, features,
                               points.kind, write<T>(out)});
  });
  return out;
}

}  // namespace geokernels
