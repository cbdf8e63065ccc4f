// The kernels of csrc/cuda that gradients of transport are made of, run on the host for
// tests/kernels/test_cuda_gradients.py.

#include "cuda_on_host.h"
// the names that it stands in for
#include "cuda/transport_density_kernel.h"
#include "cuda/transport_points_gradient_kernel.h"

namespace {

using namespace geokernels;

template <class T>
void density(const DensityBatch<T>& batch, int order) {
  const int64_t blocks = (batch.problems * batch.rows + kDensityWarps - 1) / kDensityWarps;
  cuda_on_host::launch(int(blocks), kDensityWarps * kWarp, 0, order, [&] { density_kernel<T>(batch); });
}

template <class T>
void gradient(const PointGradientBatch<T>& batch, int order) {
  using Gradient = PointGradient<T>;
  cuda_on_host::launch(int(gradient_blocks(batch)), Gradient::kThreads, sizeof(typename Gradient::Shared),
                       order, [&] { point_gradient_kernel<T>(batch); });
}

}  // namespace

#define EXPORT(T)                                                                                            \
  extern "C" void density_##T(const T* cost, const T* f, const T* g, T* out, int64_t problems, int64_t rows, \
                              int64_t columns, double eps, int64_t order) {                                  \
    density<T>({cost, f, g, problems, rows, columns, T(1 / eps), out}, int(order));                          \
  }                                                                                                          \
  extern "C" void gradient_##T(const T* weight, const T* x, const T* y, T* out, int64_t problems,            \
                               int64_t rows, int64_t columns, int64_t features, int64_t kind,                \
                               int64_t order) {                                                              \
    gradient<T>({weight, x, y, problems, rows, columns, features, PointCost(kind), out}, int(order));        \
  }

EXPORT(float)
EXPORT(double)
