// subspace_basis and its gradient on the CPU: host loops and registration.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "core/padding.h"

#define GEOKERNELS_KERNEL "cpu/subspace_levels.h"
#include "cpu/each_level.h"
#include "cpu/tensors.h"
#include "fresh.h"

namespace geokernels {
namespace {

using torch::stable::Tensor;

std::tuple<Tensor, Tensor, Tensor> subspace_basis(const Tensor& x, int64_t, double rtol) {
  check_first_batch(x, 2);
  const Batch batch(x, 2);
  const int64_t N = x.size(-2), D = x.size(-1), R = std::min(N, D);
  Tensor left = fresh(x, batch.with({R, N}));
  Tensor directions = fresh(x, batch.with({R, D}));
  Tensor values = fresh(x, batch.with({R}));
  auto memory = [&](auto zero) { return room_for<baseline::BasisRoom, decltype(zero)>(N, D); };
  for_each_problem(x, batch.count, N * D * R, memory, [&](int64_t b, auto work) {
    using T = typename decltype(work)::Number;
    GEOKERNELS_AT_LEVEL(basis_problem<T>, read<T>(x) + b * N * D, N, D, rtol, write<T>(left) + b * R * N,
                        write<T>(directions) + b * R * D, write<T>(values) + b * R, work);
  });
  return {left, directions, values};
}

Tensor subspace_basis_backward(const Tensor& grad_directions, const std::optional<Tensor>& grad_values,
                               const Tensor& left, const Tensor& directions, const Tensor& values,
                               int64_t rank) {
  check_first_batch(left, 2);
  check_first_batch(directions, 2);
  const Batch batch(left, 2);
  const int64_t R = left.size(-2), N = left.size(-1), D = directions.size(-1);
  STD_TORCH_CHECK(R == std::min(N, D), "geokernels got ", R, " directions of ", N, " rows and ", D,
                  " features");
  for (const Tensor* part : {&directions, &grad_directions}) check(*part, batch.with({R, D}), left);
  check(values, batch.with({R}), left);
  if (grad_values) check(*grad_values, batch.with({R}), left);
  Tensor grad_x = fresh(left, batch.with({N, D}));
  auto memory = [&](auto zero) { return room_for<baseline::BasisBackwardRoom, decltype(zero)>(N, D); };
  for_each_problem(left, batch.count, N * D * R, memory, [&](int64_t b, auto work) {
    using T = typename decltype(work)::Number;
    GEOKERNELS_AT_LEVEL(basis_backward_problem<T>, read<T>(grad_directions) + b * R * D,
                        grad_values ? read<T>(*grad_values) + b * R : nullptr, read<T>(left) + b * R * N,
                        read<T>(directions) + b * R * D, read<T>(values) + b * R, N, D, rank,
                        write<T>(grad_x) + b * N * D, work);
  });
  return grad_x;
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CPU, m) {
  m.impl("subspace_basis", TORCH_BOX(&geokernels::subspace_basis));
  m.impl("subspace_basis_backward", TORCH_BOX(&geokernels::subspace_basis_backward));
}
