// What gradients of entropic transport are made of, on the GPU: how the kernels are launched, and their
// registration. Kernels are cuda/transport_density_kernel.h and cuda/transport_points_gradient_kernel.h.

#include <type_traits>

#include "cuda/launch.h"
#include "cuda/transport_density_kernel.h"
#include "cuda/transport_points_gradient_kernel.h"
#include "host/operators.h"
#include "host/transport_gradients.h"

namespace geokernels {
namespace {

Tensor transport_density(const Tensor& cost, const Tensor& f, const Tensor& g, double eps) {
  const Device device(cost);
  return density_of_batch(cost, f, g, eps, [&](const auto& batch) {
    using T = std::decay_t<decltype(*batch.out)>;
    const int64_t blocks = (batch.problems * batch.rows + kDensityWarps - 1) / kDensityWarps;
    launch(density_kernel<T>, blocks, kDensityWarps * kWarp, 0, device.stream(), batch);
  });
}

Tensor point_gradient(const Tensor& weight, const Tensor& x, const Tensor& y, int64_t cost) {
  const Device device(x);
  return point_gradient_of_batch(weight, x, y, cost, [&](const auto& batch) {
    using T = std::decay_t<decltype(*batch.out)>;
    launch(point_gradient_kernel<T>, gradient_blocks(batch), PointGradient<T>::kThreads,
           sizeof(typename PointGradient<T>::Shared), device.stream(), batch);
  });
}

}  // namespace
}  // namespace geokernels

GEOKERNELS_OPERATORS(CUDA, m) {
  m.impl("transport_density", TORCH_BOX(&geokernels::transport_density));
  m.impl("point_gradient", TORCH_BOX(&geokernels::point_gradient));
}
