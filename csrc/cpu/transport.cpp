// Entropic transport and assignment on the CPU: the host loops over a batch, and their registration.
// The iteration itself is cpu/transport_kernel.h.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <utility>

#include "core/assignment.h"
#include "cpu/workers.h"
#include "transport_batch.h"

#define GEOKERNELS_KERNEL "cpu/transport_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

Solution sinkhorn(const Tensor& cost, const std::optional<Tensor>& a, const std::optional<Tensor>& b,
                  const std::optional<Tensor>& n, const std::optional<Tensor>& m,
                  const std::optional<Tensor>& start, double eps, double reach, int64_t max_iter,
                  double tol) {
  return solve_batch(cost, a, b, n, m, start, eps, reach, max_iter, tol, [](auto batch) {
    using T = std::remove_pointer_t<decltype(batch.f)>;
    int64_t memory = GEOKERNELS_AT_LEVEL(sinkhorn_workspace<T>, batch.rows, batch.columns);
    share_out<T>(batch.problems, memory, [&](int64_t k, T* own) {
      TransportProblem<T> p = batch.problem(k);
      std::fill(p.f + p.n, p.f + batch.rows, T(0));
      std::fill(p.g + p.m, p.g + batch.columns, T(0));
      GEOKERNELS_AT_LEVEL(sinkhorn<T>, p, own);
    });
  });
}

// [..., N, M] costs to the column of each row; -1 throughout where no finite assignment exists.
Tensor assignment(const Tensor& cost_given) {
  Tensor cost = torch::stable::contiguous(cost_given);
  STD_TORCH_CHECK(cost.dim() >= 2 && cost.scalar_type() == ScalarType::Double,
                  "geokernels: cost must be float64 with two dimensions");
  int64_t rows = cost.size(-2), columns = cost.size(-1);
  STD_TORCH_CHECK(0 < rows && rows <= columns, "geokernels: as many columns as rows, or more");
  std::vector<int64_t> shape(cost.sizes().begin(), cost.sizes().end() - 1);
  Tensor chosen = torch::stable::new_empty(cost, shape, ScalarType::Long);
  share_out<double>(cost.numel() / (rows * columns), 1, [&](int64_t k, double*) {
    assign(static_cast<const double*>(cost.const_data_ptr()) + k * rows * columns, rows, columns,
           static_cast<int64_t*>(chosen.mutable_data_ptr()) + k * rows);
  });
  return chosen;
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CPU, m) {
  m.impl("sinkhorn", TORCH_BOX(&geokernels::sinkhorn));
  m.impl("assignment", TORCH_BOX(&geokernels::assignment));
}
