// The geodesic cosine on the GPU: how its kernels are launched, and registration.
// The kernels are cuda/geodesic_kernel.h and cuda/geodesic_backward_kernel.h.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/geodesic_backward_kernel.h"
#include "cuda/geodesic_kernel.h"
#include "cuda/launcher.h"
#include "host/geodesic_sizes.h"

namespace geokernels {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> geodesic_cosine(const Tensor& x, const Tensor& y,
                                                                   const Tensor& p, const Tensor& q,
                                                                   double eps) {
  const GeodesicSizes s(x, y, p, q);
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
    Launcher<T>(x).start(GEOKERNELS_NEAR_AND_FAR(geodesic_cosine_kernel, T), work, s.batch.count,
                         Frame<T>::room(s.M), kGeodesicThreads);
  });
  return out.all();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> geodesic_cosine_backward(
    const Tensor& grad, const Tensor& x, const Tensor& y, const Tensor& p, const Tensor& q,
    const Tensor& left, const Tensor& right, const Tensor& g, const Tensor& coordinates, double eps,
    bool to_x, bool to_y, bool to_p, bool to_q) {
  const GeodesicSizes s(x, y, p, q);
  s.check_results(grad, left, right, g, coordinates);
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
    Launcher<T>(x).start(GEOKERNELS_NEAR_AND_FAR(geodesic_cosine_backward_kernel, T), work, s.batch.count,
                         Frame<T>::room(s.M), kGeodesicThreads);
  });
  return {grad_x, grad_y, grad_p, grad_q};
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CUDA, m) {
  m.impl("geodesic_cosine", TORCH_BOX(&geokernels::geodesic_cosine));
  m.impl("geodesic_cosine_backward", TORCH_BOX(&geokernels::geodesic_cosine_backward));
}
