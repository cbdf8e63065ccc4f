// subspace_basis and its gradient on the CPU: host loops and registration.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/workers.h"
#include "host/subspace_sizes.h"

#define GEOKERNELS_KERNEL "cpu/subspace_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

std::tuple<Tensor, Tensor, Tensor> subspace_basis(const Tensor& x, int64_t, double rtol) {
  const BasisSizes s(x);
  const int64_t N = s.N, D = s.D, R = s.R;
  BasisResults out = s.fresh_results(x);
  auto memory = [&](auto zero) { return room_for<baseline::BasisRoom, decltype(zero)>(N, D); };
  for_each_problem(x, s.batch.count, N * D * R, memory, [&](int64_t b, auto work) {
    using T = typename decltype(work)::Number;
    GEOKERNELS_AT_LEVEL(basis_problem<T>, read<T>(x) + b * N * D, N, D, rtol, write<T>(out.left) + b * R * N,
                        write<T>(out.directions) + b * R * D, write<T>(out.values) + b * R, work);
  });
  return out.all();
}

Tensor subspace_basis_backward(const Tensor& grad_directions, const MaybeTensor& grad_values,
                               const Tensor& left, const Tensor& directions, const Tensor& values,
                               int64_t rank) {
  const BasisSizes s(left, directions, values);
  s.check_gradients(grad_directions, grad_values, left);
  const int64_t N = s.N, D = s.D, R = s.R;
  Tensor grad_x = fresh(left, s.batch.with({N, D}));
  auto memory = [&](auto zero) { return room_for<baseline::BasisBackwardRoom, decltype(zero)>(N, D); };
  for_each_problem(left, s.batch.count, N * D * R, memory, [&](int64_t b, auto work) {
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
