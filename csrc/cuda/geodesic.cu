// The geodesic cosine on the GPU: how its kernels are launched, and registration.
// The kernels are cuda/geodesic_kernel.h and cuda/geodesic_backward_kernel.h.

#include <tuple>

#include "cuda/geodesic_backward_kernel.h"
#include "cuda/geodesic_kernel.h"
#include "cuda/launcher.h"
#include "host/geodesic_sizes.h"
#include "host/operators.h"

namespace geokernels {
namespace {

constexpr int64_t kMostDirections = 64, kMostCoordinates = 0x7fffffff;

void check_sizes(const GeodesicSizes& s) {
  STD_TORCH_CHECK(s.M <= kMostDirections, "geokernels takes bases of up to ", kMostDirections,
                  " directions on a GPU, not of ", s.M);
  STD_TORCH_CHECK(s.N * s.M <= kMostCoordinates, "geokernels takes up to ", kMostCoordinates,
                  " coordinates a problem on a GPU, not ", s.N, " x ", s.M);
}

// Starts a kernel that keeps a frame of M directions; kernel_in(room) gives its instance. Only float64 may
// need device memory: in float32 the largest frame fits the shared memory of every GPU.
template <class T, class Work, class Kernel>
void start(const Work& work, int64_t M, const Tensor& like, Kernel kernel_in) {
  Launcher<T> on(like);
  const int64_t numbers = Frame<T>::room(M);
  if constexpr (sizeof(T) == 4)
    on.start_near(kernel_in(Near<T>()), work, work.problems, numbers, kGeodesicThreads);
  else
    on.start(kernel_in(Near<T>()), kernel_in(Far<T>()), work, work.problems, numbers, kGeodesicThreads);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> geodesic_cosine(const Tensor& x, const Tensor& y,
                                                                   const Tensor& p, const Tensor& q,
                                                                   double eps) {
  const GeodesicSizes s(x, y, p, q);
  check_sizes(s);
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
    start<T>(work, s.M, x, [](auto room) { return geodesic_cosine_kernel<T, decltype(room)>; });
  });
  return out.all();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> geodesic_cosine_backward(
    const Tensor& grad, const Tensor& x, const Tensor& y, const Tensor& p, const Tensor& q,
    const Tensor& left, const Tensor& right, const Tensor& g, const Tensor& coordinates, double eps,
    bool to_x, bool to_y, bool to_p, bool to_q) {
  const GeodesicSizes s(x, y, p, q);
  s.check_results(grad, left, right, g, coordinates);
  check_sizes(s);
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
    start<T>(work, s.M, x, [](auto room) { return geodesic_cosine_backward_kernel<T, decltype(room)>; });
  });
  return {grad_x, grad_y, grad_p, grad_q};
}

}  // namespace
}  // namespace geokernels

GEOKERNELS_OPERATORS(CUDA, m) {
  m.impl("geodesic_cosine", TORCH_BOX(&geokernels::geodesic_cosine));
  m.impl("geodesic_cosine_backward", TORCH_BOX(&geokernels::geodesic_cosine_backward));
}
