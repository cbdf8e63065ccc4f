// Subspaces and the geodesic cosine on the GPU: how their kernels are launched, and registration.
// The kernels are cuda/subspace_kernel.h, cuda/angles_kernel.h, cuda/geodesic_kernel.h and
// cuda/geodesic_backward_kernel.h.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "cuda/angles_kernel.h"
#include "cuda/geodesic_backward_kernel.h"
#include "cuda/geodesic_kernel.h"
#include "cuda/launch.h"
#include "host/geodesic_sizes.h"
#include "host/subspace_sizes.h"

namespace geokernels {
namespace {

constexpr int64_t kBlocksEach = 4;           // a multiprocessor's, where blocks work in device memory
constexpr int64_t kMostBlocks = 0x7fffffff;  // of one launch

// Starts a block for each problem in shared memory; where it does not fit, as many as run at once in device
// memory. Blocks take problems in turn, should there be more of these.
template <class T, class Work>
void launch_in_room(void (*kernel)(Work, Room<T>), const Work& work, int64_t numbers, int threads,
                    const Tensor& like, const Device& device) {
  if (work.problems == 0) return;
  const int64_t bytes = numbers * int64_t(sizeof(T));
  if (bytes <= device.block_memory())
    return launch(kernel, std::min(work.problems, kMostBlocks), threads, bytes, device.stream(), work,
                  Room<T>{nullptr, 0});
  const int64_t blocks =
      std::min(work.problems, kBlocksEach * device.property(cudaDevAttrMultiProcessorCount));
  const int64_t size = (numbers + 3) / 4 * 4;
  Tensor far = fresh(like, {blocks, size});
  launch(kernel, blocks, threads, 0, device.stream(), work, Room<T>{write<T>(far), size});
}

std::tuple<Tensor, Tensor, Tensor> subspace_basis(const Tensor& x, int64_t, double rtol) {
  const BasisSizes s(x);
  const Device device(x);
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
    launch_in_room(subspace_basis_kernel<T>, work, work.room(), kSubspaceThreads, x, device);
  });
  return out.all();
}

Tensor subspace_basis_backward(const Tensor& grad_directions, const MaybeTensor& grad_values,
                               const Tensor& left, const Tensor& directions, const Tensor& values,
                               int64_t rank) {
  const BasisSizes s(left, directions, values);
  s.check_gradients(grad_directions, grad_values, left);
  const Device device(left);
  Tensor grad_x = fresh(left, s.batch.with({s.N, s.D}));
  with_type(left, [&](auto zero) {
    using T = decltype(zero);
    const BasisGradient<T> work{read<T>(grad_directions),
                                grad_values ? read<T>(*grad_values) : nullptr,
                                read<T>(left),
                                read<T>(directions),
                                read<T>(values),
                                write<T>(grad_x),
                                s.batch.count,
                                s.N,
                                s.D,
                                rank};
    launch_in_room(subspace_basis_backward_kernel<T>, work, work.room(), kSubspaceThreads, left, device);
  });
  return grad_x;
}

Tensor principal_angles(const Tensor& p, const Tensor& q) {
  check_first(p, 2);
  check_first(q, 2);
  const Device device(p);
  const Batch batch(p, 2);
  const int64_t K = p.size(-2), L = q.size(-2), D = p.size(-1);
  check(q, batch.with({L, D}), p);
  Tensor angles = fresh(p, batch.with({std::min(K, L)}));
  with_type(p, [&](auto zero) {
    using T = decltype(zero);
    const AngleBatch<T> work{read<T>(p), read<T>(q), write<T>(angles), batch.count, D, K, L};
    launch_in_room(principal_angles_kernel<T>, work, work.room(), kSubspaceThreads, p, device);
  });
  return angles;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> geodesic_cosine(const Tensor& x, const Tensor& y,
                                                                   const Tensor& p, const Tensor& q,
                                                                   double eps) {
  const GeodesicSizes s(x, y, p, q);
  const Device device(x);
  CosineResults out = s.fresh_results();
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const CosineBatch<T> work{read<T>(x),
                              read<T>(y),
                              read<T>(p),
                              read<T>(q),
                              write<T>(out.cosine),
                              write<T>(out.left),
                              write<T>(out.right),
                              write<T>(out.g),
                              write<T>(out.coordinates),
                              s.batch.count,
                              s.N,
                              s.D,
                              s.K,
                              s.L,
                              eps};
    launch_in_room(geodesic_cosine_kernel<T>, work, Frame<T>::room(s.M), kGeodesicThreads, x, device);
  });
  return out.all();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> geodesic_cosine_backward(
    const Tensor& grad, const Tensor& x, const Tensor& y, const Tensor& p, const Tensor& q,
    const Tensor& left, const Tensor& right, const Tensor& g, const Tensor& coordinates, double eps,
    bool to_x, bool to_y, bool to_p, bool to_q) {
  const GeodesicSizes s(x, y, p, q);
  s.check_results(grad, left, right, g, coordinates);
  const Device device(x);
  Tensor grad_x = s.fresh_gradient(to_x, s.N), grad_y = s.fresh_gradient(to_y, s.N);
  Tensor grad_p = s.fresh_gradient(to_p, s.K), grad_q = s.fresh_gradient(to_q, s.L);
  Tensor turned = fresh(x, s.batch.with({4, s.N, s.M})), on = fresh(x, s.batch.with({4, s.N, s.M}));
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    auto at = [](bool wanted, Tensor& to) { return wanted ? write<T>(to) : nullptr; };
    const CosineGradient<T> work{read<T>(grad),
                                 read<T>(x),
                                 read<T>(y),
                                 read<T>(p),
                                 read<T>(q),
                                 read<T>(left),
                                 read<T>(right),
                                 read<T>(g),
                                 read<T>(coordinates),
                                 at(to_x, grad_x),
                                 at(to_y, grad_y),
                                 at(to_p, grad_p),
                                 at(to_q, grad_q),
                                 write<T>(turned),
                                 write<T>(on),
                                 s.batch.count,
                                 s.N,
                                 s.D,
                                 s.K,
                                 s.L,
                                 eps};
    launch_in_room(geodesic_cosine_backward_kernel<T>, work, Frame<T>::room(s.M), kGeodesicThreads, x,
                   device);
  });
  return {grad_x, grad_y, grad_p, grad_q};
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CUDA, m) {
  m.impl("subspace_basis", TORCH_BOX(&geokernels::subspace_basis));
  m.impl("subspace_basis_backward", TORCH_BOX(&geokernels::subspace_basis_backward));
  m.impl("principal_angles", TORCH_BOX(&geokernels::principal_angles));
  m.impl("geodesic_cosine", TORCH_BOX(&geokernels::geodesic_cosine));
  m.impl("geodesic_cosine_backward", TORCH_BOX(&geokernels::geodesic_cosine_backward));
}
