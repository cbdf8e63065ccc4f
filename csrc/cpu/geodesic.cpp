// geodesic_cosine and its gradient on the CPU: host loops and registration.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/workers.h"
#include "host/geodesic_sizes.h"

#define GEOKERNELS_KERNEL "cpu/geodesic_backward_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

// Multiplications a problem, about.
int64_t cost(const GeodesicSizes& s) { return (4 * s.N + s.M) * s.M * s.D; }

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> geodesic_cosine(const Tensor& x, const Tensor& y,
                                                                   const Tensor& p, const Tensor& q,
                                                                   double eps) {
  const GeodesicSizes s(x, y, p, q);
  CosineResults out = s.fresh_results();
  auto memory = [&](auto zero) { return room_for<baseline::CosineRoom, decltype(zero)>(s.N, s.M); };
  for_each_problem(x, s.batch.count, cost(s), memory, [&](int64_t b, auto work) {
    using T = typename decltype(work)::Number;
    GEOKERNELS_AT_LEVEL(cosine_problem<T>, read<T>(x) + b * s.N * s.D, read<T>(y) + b * s.N * s.D, s.N,
                        read<T>(p) + b * s.K * s.D, read<T>(q) + b * s.L * s.D, s.N, s.D, s.K, s.L, eps,
                        write<T>(out.cosine) + b * s.N, write<T>(out.left) + b * s.M * s.M,
                        write<T>(out.right) + b * s.M * s.M, write<T>(out.g) + b * s.M,
                        write<T>(out.coordinates) + b * 4 * s.N * s.M, work);
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
  auto memory = [&](auto zero) { return room_for<baseline::CosineBackwardRoom, decltype(zero)>(s.N, s.M); };
  for_each_problem(x, s.batch.count, cost(s), memory, [&](int64_t b, auto work) {
    using T = typename decltype(work)::Number;
    auto at = [&](bool wanted, Tensor& to, int64_t offset) {
      return wanted ? write<T>(to) + offset : nullptr;
    };
    const int64_t rows = b * s.N * s.D, square = b * s.M * s.M;
    T* const to[4] = {at(to_x, grad_x, rows), at(to_y, grad_y, rows), at(to_p, grad_p, b * s.K * s.D),
                      at(to_q, grad_q, b * s.L * s.D)};
    GEOKERNELS_AT_LEVEL(cosine_backward_problem<T>, read<T>(grad) + b * s.N, read<T>(x) + rows,
                        read<T>(y) + rows, s.N, read<T>(p) + b * s.K * s.D, read<T>(q) + b * s.L * s.D,
                        read<T>(left) + square, read<T>(right) + square, read<T>(g) + b * s.M,
                        read<T>(coordinates) + b * 4 * s.N * s.M, s.N, s.D, s.K, s.L, eps, to, work);
  });
  return {grad_x, grad_y, grad_p, grad_q};
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CPU, m) {
  m.impl("geodesic_cosine", TORCH_BOX(&geokernels::geodesic_cosine));
  m.impl("geodesic_cosine_backward", TORCH_BOX(&geokernels::geodesic_cosine_backward));
}
