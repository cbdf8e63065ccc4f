// From tensors to a TransportBatch: what the CPU and the CUDA operator do alike before they compute.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "core/transport_problem.h"
#include "fresh.h"

namespace geokernels {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

using Solution = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;  // value, f, g, error, iterations

// Without a call where nothing is to be done: those of torch::stable look operators up by name.
inline Tensor dense(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }

inline std::optional<Tensor> whole(const std::optional<Tensor>& x) {
  return x ? std::optional<Tensor>(dense(*x)) : x;
}

// The address of an optional input, which must lie beside cost.
template <class T>
const T* input(const std::optional<Tensor>& x, const char* name, const Tensor& cost, int64_t numel,
               ScalarType dtype) {
  if (!x) return nullptr;
  STD_TORCH_CHECK(x->numel() == numel && x->is_contiguous() && x->scalar_type() == dtype &&
                      x->is_cuda() == cost.is_cuda() && x->get_device_index() == cost.get_device_index(),
                  "geokernels: ", name, " must be contiguous, beside cost, with ", numel,
                  " elements of the right dtype");
  return static_cast<const T*>(x->const_data_ptr());
}

// Checks what memory safety needs, allocates the outputs, and hands work a TransportBatch<float or double>.
template <class Work>
Solution solve_batch(const Tensor& cost_given, const std::optional<Tensor>& a, const std::optional<Tensor>& b,
                     const std::optional<Tensor>& n, const std::optional<Tensor>& m,
                     const std::optional<Tensor>& start, double eps, double reach, int64_t max_iter,
                     double tol, const Work& work) {
  Tensor cost = dense(cost_given);
  STD_TORCH_CHECK(cost.dim() >= 2, "geokernels: cost must have two dimensions");
  int64_t rows = cost.size(-2), columns = cost.size(-1);
  STD_TORCH_CHECK(0 < rows && rows <= kMostPoints && 0 < columns && columns <= kMostPoints,
                  "geokernels: between 1 and ", kMostPoints, " points a side");
  ScalarType dtype = cost.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "geokernels: cost must be float32 or float64");
  int64_t problems = cost.numel() / (rows * columns);

  std::vector<int64_t> shape(cost.sizes().begin(), cost.sizes().end() - 2);
  auto empty = [&](int64_t last, ScalarType type) {
    std::vector<int64_t> whole = shape;
    if (last) whole.push_back(last);
    return fresh(cost, whole, type);
  };
  Solution out{empty(0, dtype), empty(rows, dtype), empty(columns, dtype), empty(0, dtype),
               empty(0, ScalarType::Long)};
  if (problems == 0) return out;
  auto solve = [&](auto zero) {
    using T = decltype(zero);
    auto written = [](const Tensor& x) { return static_cast<T*>(x.mutable_data_ptr()); };
    work(TransportBatch<T>{
        static_cast<const T*>(cost.const_data_ptr()), input<T>(whole(a), "a", cost, problems * rows, dtype),
        input<T>(whole(b), "b", cost, problems * columns, dtype),
        input<T>(whole(start), "start", cost, problems * columns, dtype),
        input<int64_t>(whole(n), "n", cost, problems, ScalarType::Long),
        input<int64_t>(whole(m), "m", cost, problems, ScalarType::Long), problems, rows, columns, eps, reach,
        tol, max_iter, written(std::get<0>(out)), written(std::get<1>(out)), written(std::get<2>(out)),
        written(std::get<3>(out)), static_cast<int64_t*>(std::get<4>(out).mutable_data_ptr())});
  };
  if (dtype == ScalarType::Float)
    solve(float());
  else
    solve(double());
  return out;
}

}  // namespace geokernels
