// Subspaces on the GPU: how their kernels are launched, and registration.
// The kernels are cuda/subspace_kernel.h, cuda/subspace_backward_kernel.h and cuda/angles_kernel.h.

#include <algorithm>
#include <tuple>

#include "cuda/angles_kernel.h"
#include "cuda/launcher.h"
#include "cuda/subspace_plan.h"
#include "host/operators.h"
#include "host/subspace_sizes.h"

namespace geokernels {
namespace {

void check_rows(int64_t rows) {
  STD_TORCH_CHECK(rows <= kMostRows, "geokernels finds the bases of up to ", kMostRows,
                  " rows on a GPU, not of ", rows);
}

std::tuple<Tensor, Tensor, Tensor> subspace_basis(const Tensor& x, int64_t, double rtol) {
  const BasisSizes s(x);
  check_rows(s.N);
  BasisResults out = s.fresh_results(x);
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const BasisBatch<T> work{read<T>(x),
                             write<T>(out.left),
                             write<T>(out.directions),
                             write<T>(out.values),
                             s.batch.count,
                             s.N,
                             s.D,
                             rtol};
    Launcher<T> on(x);
    find_bases(work, on);
  });
  return out.all();
}

Tensor subspace_basis_backward(const Tensor& grad_directions, const MaybeTensor& grad_values,
                               const Tensor& left, const Tensor& directions, const Tensor& values,
                               int64_t rank) {
  const BasisSizes s(left, directions, values);
  s.check_gradients(grad_directions, grad_values, left);
  check_rows(s.N);
  Tensor grad_x = fresh(left, s.batch.with({s.N, s.D}));
  with_type(left, [&](auto zero) {
    using T = decltype(zero);
    BasisGradient<T> work{read<T>(grad_directions),
                          grad_values ? read<T>(*grad_values) : nullptr,
                          read<T>(left),
                          read<T>(directions),
                          read<T>(values),
                          write<T>(grad_x),
                          nullptr,
                          s.batch.count,
                          s.N,
                          s.D,
                          rank};
    Launcher<T> on(left);
    find_basis_gradients(work, on);
  });
  return grad_x;
}

Tensor principal_angles(const Tensor& p, const Tensor& q) {
  check_first(p, 2);
  check_first(q, 2);
  const Batch batch(p, 2);
  const int64_t K = p.size(-2), L = q.size(-2), D = p.size(-1);
  check(q, batch.with({L, D}), p);
  check_rows(L);
  Tensor angles = fresh(p, batch.with({std::min(K, L)}));
  with_type(p, [&](auto zero) {
    using T = decltype(zero);
    Launcher<T> on(p);
    find_angles<T>({read<T>(p), read<T>(q), write<T>(angles), batch.count, D, K, L, {}, {}, {}, {}}, on);
  });
  return angles;
}

}  // namespace
}  // namespace geokernels

GEOKERNELS_OPERATORS(CUDA, m) {
  m.impl("subspace_basis", TORCH_BOX(&geokernels::subspace_basis));
  m.impl("principal_angles", TORCH_BOX(&geokernels::principal_angles));
  m.impl("subspace_basis_backward", TORCH_BOX(&geokernels::subspace_basis_backward));
}
