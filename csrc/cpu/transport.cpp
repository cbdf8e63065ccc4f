// Entropic transport and assignment on the CPU: the host loops over a batch, and their registration.
// The iteration itself is cpu/transport_kernel.h.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <atomic>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "core/assignment.h"
#include "core/transport_problem.h"

#define GEOKERNELS_KERNEL "cpu/transport_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Calls work(problem, worker's memory) for every problem. Problems are handed out one at a time, as they
// stop after different numbers of iterations; each is computed by one thread, so nothing depends on which.
template <class T, class Work>
void for_each_problem(int64_t problems, int64_t memory, const Work& work) {
  std::atomic<int64_t> taken{0};
  int64_t workers = std::min<int64_t>(problems, torch::stable::get_num_threads());
  torch::stable::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    std::unique_ptr<T[]> own;
    for (int64_t k; (k = taken.fetch_add(1, std::memory_order_relaxed)) < problems;) {
      if (!own) own.reset(new T[memory]);
      work(k, own.get());
    }
  });
}

template <class T>
const T* data(const std::optional<Tensor>& x) {
  return x ? static_cast<const T*>(x->const_data_ptr()) : nullptr;
}

template <class T>
T* output(const Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

using Solution = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class T>
void solve(const Tensor& cost, const std::optional<Tensor>& a, const std::optional<Tensor>& b,
           const std::optional<Tensor>& n, const std::optional<Tensor>& m, const std::optional<Tensor>& start,
           double eps, double reach, int64_t max_iter, double tol, int64_t problems, const Solution& out) {
  int64_t rows = cost.size(-2), columns = cost.size(-1);
  auto& [value, f, g, error, iterations] = out;
  int64_t memory = GEOKERNELS_AT_LEVEL(sinkhorn_workspace<T>, rows, columns);
  for_each_problem<T>(problems, memory, [&](int64_t k, T* own) {
    TransportProblem<T> p;
    p.n = n ? std::clamp<int64_t>(data<int64_t>(n)[k], 1, rows) : rows;
    p.m = m ? std::clamp<int64_t>(data<int64_t>(m)[k], 1, columns) : columns;
    p.cost = static_cast<const T*>(cost.const_data_ptr()) + k * rows * columns;
    p.stride = columns;
    p.a = a ? data<T>(a) + k * rows : nullptr;
    p.b = b ? data<T>(b) + k * columns : nullptr;
    p.start = start ? data<T>(start) + k * columns : nullptr;
    p.eps = eps, p.reach = reach, p.tol = tol, p.max_iter = max_iter;
    p.value = output<T>(value) + k, p.error = output<T>(error) + k;
    p.f = output<T>(f) + k * rows, p.g = output<T>(g) + k * columns;
    p.iterations = output<int64_t>(iterations) + k;
    std::fill(p.f + p.n, p.f + rows, T(0));
    std::fill(p.g + p.m, p.g + columns, T(0));
    GEOKERNELS_AT_LEVEL(sinkhorn<T>, p, own);
  });
}

void require(const std::optional<Tensor>& x, const char* name, int64_t numel, ScalarType dtype) {
  if (!x) return;
  STD_TORCH_CHECK(x->numel() == numel && x->is_contiguous() && x->scalar_type() == dtype && x->is_cpu(),
                  "geokernels: ", name, " must be contiguous, with ", numel, " elements of the right dtype");
}

Solution sinkhorn(const Tensor& cost_given, const std::optional<Tensor>& a, const std::optional<Tensor>& b,
                  const std::optional<Tensor>& n, const std::optional<Tensor>& m,
                  const std::optional<Tensor>& start, double eps, double reach, int64_t max_iter,
                  double tol) {
  Tensor cost = torch::stable::contiguous(cost_given);
  STD_TORCH_CHECK(cost.dim() >= 2, "geokernels: cost must have two dimensions");
  int64_t rows = cost.size(-2), columns = cost.size(-1);
  STD_TORCH_CHECK(0 < rows && rows <= kMostPoints && 0 < columns && columns <= kMostPoints,
                  "geokernels: between 1 and ", kMostPoints, " points a side");
  ScalarType dtype = cost.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "geokernels: cost must be float32 or float64");
  int64_t problems = cost.numel() / (rows * columns);
  require(a, "a", problems * rows, dtype);
  require(b, "b", problems * columns, dtype);
  require(start, "start", problems * columns, dtype);
  require(n, "n", problems, ScalarType::Long);
  require(m, "m", problems, ScalarType::Long);

  std::vector<int64_t> shape(cost.sizes().begin(), cost.sizes().end() - 2);
  auto empty = [&](int64_t last, ScalarType type) {
    std::vector<int64_t> whole = shape;
    if (last) whole.push_back(last);
    return torch::stable::new_empty(cost, whole, type);
  };
  Solution out{empty(0, dtype), empty(rows, dtype), empty(columns, dtype), empty(0, dtype),
               empty(0, ScalarType::Long)};
  if (dtype == ScalarType::Float)
    solve<float>(cost, a, b, n, m, start, eps, reach, max_iter, tol, problems, out);
  else
    solve<double>(cost, a, b, n, m, start, eps, reach, max_iter, tol, problems, out);
  return out;
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
  for_each_problem<double>(cost.numel() / (rows * columns), 1, [&](int64_t k, double*) {
    assign(static_cast<const double*>(cost.const_data_ptr()) + k * rows * columns, rows, columns,
           output<int64_t>(chosen) + k * rows);
  });
  return chosen;
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CPU, m) {
  m.impl("sinkhorn", TORCH_BOX(&geokernels::sinkhorn));
  m.impl("assignment", TORCH_BOX(&geokernels::assignment));
}
