// subspace_basis and its gradient on the CPU: host loops and registration.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "core/padding.h"

#define GEOKERNELS_KERNEL "cpu/subspace_kernel.h"
#include "cpu/each_level.h"
#include "cpu/tensors.h"

namespace geokernels {
namespace {

using torch::stable::Tensor;

template <class T>
int64_t basis_scratch(int64_t N, int64_t D) {
  const int64_t R = std::min(N, D);
  return (R + 1) * spread<T>(D) + R * (padded<T>(N) + padded<T>(R)) + 2 * R;
}

int64_t basis_backward_scratch(int64_t N, int64_t D) {
  const int64_t R = std::min(N, D);
  return 2 * R * R + 2 * N * R + R;
}

std::tuple<Tensor, Tensor, Tensor> subspace_basis(const Tensor& x, int64_t, double rtol) {
  check_first(x, 3);
  const int64_t B = x.size(0), N = x.size(1), D = x.size(2), R = std::min(N, D);
  Tensor left = torch::stable::new_empty(x, {B, R, N});
  Tensor directions = torch::stable::new_empty(x, {B, R, D});
  Tensor values = torch::stable::new_empty(x, {B, R});
  for_each_problem(x, B, N * D * R, [&](auto zero, int64_t begin, int64_t end) {
    using T = decltype(zero);
    std::vector<T> scratch(basis_scratch<T>(N, D));
    for (int64_t b = begin; b < end; ++b) {
      std::fill(scratch.begin(), scratch.end(), zero);
      GEOKERNELS_AT_LEVEL(basis_problem<T>, read<T>(x) + b * N * D, N, D, rtol, write<T>(left) + b * R * N,
                          write<T>(directions) + b * R * D, write<T>(values) + b * R, scratch.data());
    }
  });
  return {left, directions, values};
}

Tensor subspace_basis_backward(const Tensor& grad_directions, const Tensor& grad_values, const Tensor& left,
                               const Tensor& directions, const Tensor& values, int64_t rank) {
  check_first(left, 3);
  check_first(directions, 3);
  const int64_t B = left.size(0), R = left.size(1), N = left.size(2), D = directions.size(2);
  STD_TORCH_CHECK(R == std::min(N, D), "geokernels got ", R, " directions of ", N, " rows and ", D,
                  " features");
  check(directions, {B, R, D}, left);
  check(grad_directions, {B, R, D}, left);
  for (const Tensor* part : {&grad_values, &values}) check(*part, {B, R}, left);
  Tensor grad_x = torch::stable::new_empty(left, {B, N, D});
  for_each_problem(left, B, N * D * R, [&](auto zero, int64_t begin, int64_t end) {
    using T = decltype(zero);
    std::vector<T> scratch(basis_backward_scratch(N, D), zero);
    for (int64_t b = begin; b < end; ++b)
      GEOKERNELS_AT_LEVEL(basis_backward_problem<T>, read<T>(grad_directions) + b * R * D,
                          read<T>(grad_values) + b * R, read<T>(left) + b * R * N,
                          read<T>(directions) + b * R * D, read<T>(values) + b * R, N, D, rank,
                          write<T>(grad_x) + b * N * D, scratch.data());
  });
  return grad_x;
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CPU, m) {
  m.impl("subspace_basis", TORCH_BOX(&geokernels::subspace_basis));
  m.impl("subspace_basis_backward", TORCH_BOX(&geokernels::subspace_basis_backward));
}
