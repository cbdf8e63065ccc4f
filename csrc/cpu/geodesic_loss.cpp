// geodesic_loss on the CPU, the loss and its gradient at once: host loop and registration.

#include "core/geodesic_loss.h"

#include <algorithm>
#include <tuple>

#include "cpu/workers.h"
#include "host/fresh.h"
#include "host/operators.h"

#define GEOKERNELS_HALF_VECTORS
#define GEOKERNELS_KERNEL "cpu/geodesic_loss_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

struct LossInputs {
  const Tensor& current;
  const MaybeTensor& source;
  const Tensor& other;
  const MaybeTensor& other_source;
  const MaybeTensor& q;
  Batch batch;
  int64_t N, rows, D, K, L;

  LossInputs(const Tensor& current, const MaybeTensor& source, const Tensor& other,
             const MaybeTensor& other_source, const MaybeTensor& q, int64_t rank, int64_t other_rank)
      : current(current), source(source), other(other), other_source(other_source), q(q), batch(current, 2) {
    check_first(current, 2);
    check_first(other, 2);
    N = current.size(-2);
    D = current.size(-1);
    rows = other.size(-2);
    K = rank;
    if (q) check_first(*q, 2);
    L = q ? q->size(-2) : other_rank;
    check(other, batch.with({rows, D}), current);
    if (source) check(*source, batch.with({N, D}), current);
    if (other_source) check(*other_source, batch.with({rows, D}), current);
    if (q) check(*q, batch.with({L, D}), current);
    STD_TORCH_CHECK(source.has_value() == other_source.has_value() && (source || rows == N) && 1 <= K &&
                        K <= std::min(N, D) && 1 <= L && (q || L <= std::min(rows, D)),
                    "geokernels got ", K, " and ", L, " directions of ", N, " and ", rows, " rows of ", D,
                    " features, or one source");
  }

  int64_t cost() const {
    const int64_t M = std::max(K, L);
    return (N * std::min(N, D) + (q ? 0 : rows * rows) + (4 * N + M) * M) * D;
  }

  template <class T>
  LossProblem<T> problem(int64_t b) const {
    auto part = [b](const MaybeTensor& x, int64_t size) { return x ? read<T>(*x) + b * size : nullptr; };
    LossProblem<T> l{};
    l.current = read<T>(current) + b * N * D;
    l.source = part(source, N * D);
    l.other = read<T>(other) + b * rows * D;
    l.other_source = part(other_source, rows * D);
    l.q = part(q, L * D);
    l.N = N;
    l.rows = rows;
    l.D = D;
    l.K = K;
    l.L = L;
    return l;
  }
};

std::tuple<Tensor, Tensor> geodesic_loss(const Tensor& current, const MaybeTensor& source,
                                         const Tensor& other, const MaybeTensor& other_source,
                                         const MaybeTensor& q, int64_t rank, int64_t other_rank,
                                         double shortest, double eps, bool follow, bool with_gradient) {
  const LossInputs in(current, source, other, other_source, q, rank, other_rank);
  Tensor loss = fresh(current, in.batch.sizes);
  Tensor gradient = fresh(current, with_gradient ? in.batch.with({in.N, in.D}) : std::vector<int64_t>{0});
  auto memory = [&](auto zero) {
    using T = decltype(zero);
    return room_for<baseline::LossRoom, T>(in.problem<T>(0));
  };
  for_each_problem(current, in.batch.count, in.cost(), memory, [&](int64_t b, auto work) {
    using T = typename decltype(work)::Number;
    LossProblem<T> l = in.problem<T>(b);
    l.shortest = shortest;
    l.eps = eps;
    l.follow = follow;
    l.loss = write<T>(loss) + b;
    l.gradient = with_gradient ? write<T>(gradient) + b * in.N * in.D : nullptr;
    GEOKERNELS_AT_LEVEL(loss_problem<T>, l, work);
  });
  return {loss, gradient};
}

}  // namespace
}  // namespace geokernels

GEOKERNELS_OPERATORS(CPU, m) { m.impl("geodesic_loss", TORCH_BOX(&geokernels::geodesic_loss)); }
