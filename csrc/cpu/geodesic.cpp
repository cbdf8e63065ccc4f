// geodesic_cosine and its gradient on the CPU: host loops and registration.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "core/padding.h"

#define GEOKERNELS_KERNEL "cpu/geodesic_levels.h"
#include "cpu/each_level.h"
#include "cpu/tensors.h"
#include "fresh.h"

namespace geokernels {
namespace {

using torch::stable::Tensor;

struct Sizes {
  Batch batch;
  int64_t N, D, K, L, M;

  Sizes(const Tensor& x, const Tensor& y, const Tensor& p, const Tensor& q) : batch(x, 2) {
    for (const Tensor* part : {&x, &p, &q}) check_first_batch(*part, 2);
    N = x.size(-2);
    D = x.size(-1);
    K = p.size(-2);
    L = q.size(-2);
    M = std::max(K, L);
    check(y, batch.with({N, D}), x);
    check(p, batch.with({K, D}), x);
    check(q, batch.with({L, D}), x);
  }

  int64_t cost() const { return (4 * N + M) * M * D; }
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> geodesic_cosine(const Tensor& x, const Tensor& y,
                                                                   const Tensor& p, const Tensor& q,
                                                                   double eps) {
  const Sizes s(x, y, p, q);
  Tensor cosine = fresh(x, s.batch.with({s.N}));
  Tensor left = fresh(x, s.batch.with({s.M, s.M}));
  Tensor right = fresh(x, s.batch.with({s.M, s.M}));
  Tensor g = fresh(x, s.batch.with({s.M}));
  Tensor coordinates = fresh(x, s.batch.with({4, s.N, s.M}));
  auto memory = [&](auto zero) { return room_for<baseline::CosineRoom, decltype(zero)>(s.N, s.M); };
  for_each_problem(x, s.batch.count, s.cost(), memory, [&](int64_t b, auto work) {
    using T = typename decltype(work)::Number;
    GEOKERNELS_AT_LEVEL(cosine_problem<T>, read<T>(x) + b * s.N * s.D, read<T>(y) + b * s.N * s.D, s.N,
                        read<T>(p) + b * s.K * s.D, read<T>(q) + b * s.L * s.D, s.N, s.D, s.K, s.L, eps,
                        write<T>(cosine) + b * s.N, write<T>(left) + b * s.M * s.M,
                        write<T>(right) + b * s.M * s.M, write<T>(g) + b * s.M,
                        write<T>(coordinates) + b * 4 * s.N * s.M, work);
  });
  return {cosine, left, right, g, coordinates};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> geodesic_cosine_backward(
    const Tensor& grad, const Tensor& x, const Tensor& y, const Tensor& p, const Tensor& q,
    const Tensor& left, const Tensor& right, const Tensor& g, const Tensor& coordinates, double eps,
    bool to_x, bool to_y, bool to_p, bool to_q) {
  const Sizes s(x, y, p, q);
  check(grad, s.batch.with({s.N}), x);
  for (const Tensor* part : {&left, &right}) check(*part, s.batch.with({s.M, s.M}), x);
  check(g, s.batch.with({s.M}), x);
  check(coordinates, s.batch.with({4, s.N, s.M}), x);
  auto room = [&](bool wanted, int64_t rows) {
    return wanted ? fresh(x, s.batch.with({rows, s.D})) : fresh(x, {0});
  };
  Tensor grad_x = room(to_x, s.N), grad_y = room(to_y, s.N), grad_p = room(to_p, s.K),
         grad_q = room(to_q, s.L);
  auto memory = [&](auto zero) { return room_for<baseline::CosineBackwardRoom, decltype(zero)>(s.N, s.M); };
  for_each_problem(x, s.batch.count, s.cost(), memory, [&](int64_t b, auto work) {
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
