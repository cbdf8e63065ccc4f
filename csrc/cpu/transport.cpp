// Entropic transport and assignment on the CPU: the host loops over a batch, and their registration.
// The iteration itself is cpu/transport_kernel.h; costs of points, cpu/transport_points_kernel.h.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <utility>

#include "core/assignment.h"
#include "core/padding.h"
#include "core/transport_value.h"
#include "cpu/workers.h"
#include "transport_batch.h"

#define GEOKERNELS_KERNEL "cpu/transport_levels.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

constexpr int64_t kWorthAThread = 20'000;  // exponentials

// One problem of a batch, whose costs are there.
template <class T>
void solve(const TransportBatch<T>& batch, int64_t k, Workspace<T> memory, Watch& watch) {
  TransportProblem<T> p = batch.problem(k);
  std::fill(p.f + p.n, p.f + batch.rows, T(0));
  std::fill(p.g + p.m, p.g + batch.columns, T(0));
  GEOKERNELS_AT_LEVEL(sinkhorn<T>, p, memory, watch);
}

Solution sinkhorn(const Tensor& cost, const std::optional<Tensor>& a, const std::optional<Tensor>& b,
                  const std::optional<Tensor>& n, const std::optional<Tensor>& m,
                  const std::optional<Tensor>& start, double eps, double reach, int64_t max_iter,
                  double tol) {
  return solve_batch(cost, a, b, n, m, start, eps, reach, max_iter, tol, [](const auto& batch) {
    using T = std::remove_pointer_t<decltype(batch.f)>;
    const int64_t memory = GEOKERNELS_AT_LEVEL(sinkhorn_workspace<T>, batch.rows, batch.columns);
    Watch watch;
    share_out<T>(watch, batch.problems, memory,
                 [&](int64_t k, Workspace<T> own) { solve(batch, k, own, watch); });
    watch.end();
  });
}

using PointSolution = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // costs, and a Solution

// The same from points: a problem's costs are made by the thread that iterates them, while they are at hand.
PointSolution sinkhorn_points(const Tensor& x_given, const Tensor& y_given, const std::optional<Tensor>& a,
                              const std::optional<Tensor>& b, const std::optional<Tensor>& n,
                              const std::optional<Tensor>& m, const std::optional<Tensor>& start,
                              int64_t cost, double eps, double reach, int64_t max_iter, double tol) {
  Tensor x = dense(x_given), y = dense(y_given);
  STD_TORCH_CHECK(x.dim() >= 2 && y.dim() == x.dim() && x.size(-1) == y.size(-1) && x.size(-1) > 0,
                  "geokernels: clouds must have two dimensions, and features in common");
  STD_TORCH_CHECK(0 <= cost && cost <= int64_t(PointCost::square), "geokernels: no such cost, ", cost);
  int64_t features = x.size(-1);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end() - 1);
  shape.push_back(y.size(-2));
  Tensor costs = fresh(x, shape, x.scalar_type());
  Solution found = solve_batch(costs, a, b, n, m, start, eps, reach, max_iter, tol, [&](const auto& batch) {
    using T = std::remove_pointer_t<decltype(batch.f)>;
    const T* of_x = static_cast<const T*>(x.const_data_ptr());
    const T* of_y = input<T>(y, "y", x, batch.problems * batch.columns * features, x.scalar_type());
    T* to = static_cast<T*>(costs.mutable_data_ptr());
    int64_t memory = std::max(GEOKERNELS_AT_LEVEL(sinkhorn_workspace<T>, batch.rows, batch.columns),
                              GEOKERNELS_AT_LEVEL(point_costs_workspace<T>, batch.columns, features));
    const int64_t threads = torch::stable::get_num_threads();
    Watch watch;
    share_out<T>(watch, batch.problems, memory, [&](int64_t k, Workspace<T> own) {
      TransportProblem<T> p = batch.problem(k);
      T* made = to + k * batch.rows * batch.columns;
      if (p.n < batch.rows || p.m < batch.columns)
        std::fill(made, made + batch.rows * batch.columns, std::numeric_limits<T>::infinity());
      // threads go on side by side: this one is likely to come to that problem next
      const int64_t on = k + threads < batch.problems ? threads * features : 0;
      GEOKERNELS_AT_LEVEL(point_costs<T>, of_x + k * batch.rows * features,
                          of_y + k * batch.columns * features, p.n, p.m, features,
                          std::make_pair(on * batch.rows, on * batch.columns), PointCost(cost), made,
                          batch.columns, own);
      solve(batch, k, own.again(), watch);
    });
    watch.end();
  });
  return std::tuple_cat(std::make_tuple(costs), found);
}

// The gradient of sum_ij weight_ij C_ij to x: [..., N, M], [..., N, D] and [..., M, D] to [..., N, D].
Tensor point_gradient(const Tensor& weight_given, const Tensor& x_given, const Tensor& y_given,
                      int64_t cost) {
  Tensor weight = dense(weight_given), x = dense(x_given), y = dense(y_given);
  STD_TORCH_CHECK(x.dim() >= 2 && y.dim() == x.dim() && x.size(-1) == y.size(-1),
                  "geokernels: clouds must have two dimensions, and features in common");
  STD_TORCH_CHECK(0 <= cost && cost <= int64_t(PointCost::square), "geokernels: no such cost, ", cost);
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "geokernels: clouds must be float32 or float64");
  const int64_t rows = x.size(-2), columns = y.size(-2), features = x.size(-1);
  Tensor out = fresh(x, {x.sizes().begin(), x.sizes().end()}, dtype);
  if (x.numel() == 0) return out;
  const int64_t problems = x.numel() / (rows * features);
  auto fill = [&](auto zero) {
    using T = decltype(zero);
    const T* of_pairs = input<T>(weight, "weight", x, problems * rows * columns, dtype);
    const T* of_x = static_cast<const T*>(x.const_data_ptr());
    const T* of_y = input<T>(y, "y", x, problems * columns * features, dtype);
    T* to = static_cast<T*>(out.mutable_data_ptr());
    Watch watch;
    share_out<T>(watch, problems, GEOKERNELS_AT_LEVEL(point_gradient_workspace<T>, rows, columns),
                 [&](int64_t k, Workspace<T> own) {
                   GEOKERNELS_AT_LEVEL(point_gradient<T>, of_pairs + k * rows * columns,
                                       of_x + k * rows * features, of_y + k * columns * features, rows,
                                       columns, features, PointCost(cost), to + k * rows * features, own);
                 });
    watch.end();
  };
  dtype == ScalarType::Float ? fill(float()) : fill(double());
  return out;
}

// [..., N, M] costs and their potentials to the plan relative to its weights.
Tensor transport_density(const Tensor& cost_given, const Tensor& f_given, const Tensor& g_given, double eps) {
  Tensor cost = dense(cost_given), f = dense(f_given), g = dense(g_given);
  STD_TORCH_CHECK(cost.dim() >= 2, "geokernels: cost must have two dimensions");
  const ScalarType dtype = cost.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "geokernels: cost must be float32 or float64");
  const int64_t rows = cost.size(-2), columns = cost.size(-1), count = cost.numel();
  Tensor out = fresh(cost, {cost.sizes().begin(), cost.sizes().end()}, dtype);
  if (count == 0) return out;
  auto fill = [&](auto zero) {
    using T = decltype(zero);
    const T* of_rows = input<T>(f, "f", cost, count / columns, dtype);
    const T* of_columns = input<T>(g, "g", cost, count / rows, dtype);
    const T* costs = static_cast<const T*>(cost.const_data_ptr());
    T* to = static_cast<T*>(out.mutable_data_ptr());
    const int64_t grain = 1 + kWorthAThread / columns;
    parallel_for(0, count / columns, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        GEOKERNELS_AT_LEVEL(density_row<T>, costs + i * columns, of_rows[i], of_columns + i / rows * columns,
                            columns, eps, to + i * columns);
    });
  };
  dtype == ScalarType::Float ? fill(float()) : fill(double());
  return out;
}

// [..., N, M] costs to the column of each row; -1 throughout where no finite assignment exists.
Tensor assignment(const Tensor& cost_given) {
  Tensor cost = dense(cost_given);
  STD_TORCH_CHECK(cost.dim() >= 2 && cost.scalar_type() == ScalarType::Double,
                  "geokernels: cost must be float64 with two dimensions");
  int64_t rows = cost.size(-2), columns = cost.size(-1);
  STD_TORCH_CHECK(0 < rows && rows <= columns, "geokernels: as many columns as rows, or more");
  std::vector<int64_t> shape(cost.sizes().begin(), cost.sizes().end() - 1);
  Tensor chosen = fresh(cost, shape, ScalarType::Long);
  Watch watch;
  share_out<double>(watch, cost.numel() / (rows * columns), 0, [&](int64_t k, Workspace<double>) {
    assign(static_cast<const double*>(cost.const_data_ptr()) + k * rows * columns, rows, columns,
           static_cast<int64_t*>(chosen.mutable_data_ptr()) + k * rows, watch);
  });
  watch.end();
  return chosen;
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CPU, m) {
  m.impl("sinkhorn", TORCH_BOX(&geokernels::sinkhorn));
  m.impl("sinkhorn_points", TORCH_BOX(&geokernels::sinkhorn_points));
  m.impl("point_gradient", TORCH_BOX(&geokernels::point_gradient));
  m.impl("transport_density", TORCH_BOX(&geokernels::transport_density));
  m.impl("assignment", TORCH_BOX(&geokernels::assignment));
}
